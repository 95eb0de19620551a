// `MatmulLeader`, a TensorRT plugin (IPluginV3): y = x W^T with W in the `leader` form.
//
// Inputs: x (..., in_features) float32, float16 or bfloat16; signs and indices, (n_words,) int32;
// table (2^(s+b), d) float32; scale (out_features,) float16. Output: x's shape with the last
// dimension replaced. It needs TensorRT's headers only; the logger comes from whoever loads it.
// Nothing here throws: memory is fixed, or asked for by nothrow.

#include <NvInferRuntime.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>

#include "launch.h"

namespace {

using namespace nvinfer1;

constexpr char kName[] = "MatmulLeader", kVersion[] = "1", kNamespace[] = "einsort";
enum Input { kX, kSigns, kIndices, kTable, kScale, kInputs };
constexpr const char* kInputNames[kInputs] = {"x", "signs", "indices", "table", "scale"};
constexpr int kFields = 5;
constexpr const char* kFieldNames[kFields] = {"out_features", "in_features", "d", "b", "s"};

ILoggerFinder* g_finder = nullptr;

// Returns -1, for `return refuse(...)`.
__attribute__((format(printf, 1, 2))) int refuse(const char* format, ...) {
  char message[512];
  int used = std::snprintf(message, sizeof message, "%s: ", kName);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message + used, sizeof message - used, format, arguments);
  va_end(arguments);
  ILogger* logger = g_finder ? g_finder->findLogger() : nullptr;
  if (logger) {
    logger->log(ILogger::Severity::kERROR, message);
  } else {
    std::fprintf(stderr, "%s\n", message);
  }
  return -1;
}

struct Layer {
  int32_t fields[kFields] = {0, 0, 0, 0, -1};  // of kFieldNames

  int64_t n() const { return fields[0]; }
  int64_t k() const { return fields[1]; }
  int d() const { return fields[2]; }
  int b() const { return fields[3]; }
  int s() const { return fields[4]; }

  // Of each input but x; the second is 0 where there is one dimension only.
  void shape(int input, int64_t (&dims)[2]) const {
    const int64_t slices = (n() + d() - 1) / d();
    dims[0] = input == kSigns     ? (n() * k() + 31) / 32 + 1
              : input == kIndices ? (k() * slices * b() + 31) / 32 + 1
              : input == kTable   ? int64_t(1) << (s() + b())
                                  : n();
    dims[1] = input == kTable ? d() : 0;
  }

  int check() const {
    if (n() < 1 || k() < 1)
      return refuse("out_features=%d in_features=%d; both must be at least 1.", fields[0],
                    fields[1]);
    if (einsort_check_window(d(), b(), s())) return refuse("%s", einsort_last_error());
    return 0;
  }

  // dims: of one input; -1 where a dimension is not known yet.
  int check_dims(int input, const int64_t* dims, int rank) const {
    if (input == kX) {
      if (rank < 1) return refuse("x has no dimension; its last one must be in_features.");
      const int64_t last = dims[rank - 1];
      if (last != -1 && last != k())
        return refuse("x has %lld features; in_features is %lld.", (long long)last, (long long)k());
      return 0;
    }
    int64_t expected[2];
    shape(input, expected);
    const int expected_rank = expected[1] ? 2 : 1;
    if (rank != expected_rank)
      return refuse("%s has %d dimensions; it must have %d.", kInputNames[input], rank,
                    expected_rank);
    for (int i = 0; i < rank; ++i) {
      if (dims[i] != -1 && dims[i] != expected[i])
        return refuse(
            "dimension %d of %s is %lld; with out_features=%d in_features=%d d=%d b=%d s=%d it "
            "must be %lld. Streams have a word of zeros after their last.",
            i, kInputNames[input], (long long)dims[i], fields[0], fields[1], d(), b(), s(),
            (long long)expected[i]);
    }
    return 0;
  }

  int check_dims(int input, const Dims& dims) const {
    return check_dims(input, dims.d, dims.nbDims);
  }
};

int64_t rows(const Dims& x) {
  int64_t product = 1;
  for (int i = 0; i + 1 < x.nbDims; ++i) product *= x.d[i];
  return product;
}

bool is_activation(DataType type) {
  return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

int launcher_type(DataType type) {
  return type == DataType::kFLOAT  ? kEinsortFloat
         : type == DataType::kHALF ? kEinsortHalf
                                   : kEinsortBFloat16;
}

class MatmulLeader final : public IPluginV3,
                           public IPluginV3OneCore,
                           public IPluginV3OneBuild,
                           public IPluginV3OneRuntime {
 public:
  explicit MatmulLeader(const Layer& layer) : layer_(layer) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  IPluginV3* clone() noexcept override { return new (std::nothrow) MatmulLeader(layer_); }

  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* outputs, int32_t n_outputs, const DataType* inputs,
                             int32_t n_inputs) const noexcept override {
    if (check_counts(n_inputs, n_outputs)) return -1;
    outputs[0] = inputs[kX];
    return 0;
  }

  int32_t getOutputShapes(const DimsExprs* inputs, int32_t n_inputs, const DimsExprs*, int32_t,
                          DimsExprs* outputs, int32_t n_outputs,
                          IExprBuilder& builder) noexcept override {
    if (check_counts(n_inputs, n_outputs)) return -1;
    for (int input = 0; input < kInputs; ++input) {
      int64_t dims[Dims::MAX_DIMS];
      for (int i = 0; i < inputs[input].nbDims; ++i) {
        const IDimensionExpr* dim = inputs[input].d[i];
        dims[i] = dim->isConstant() ? dim->getConstantValue() : -1;
      }
      if (layer_.check_dims(input, dims, inputs[input].nbDims)) return -1;
    }
    outputs[0] = inputs[kX];
    outputs[0].d[outputs[0].nbDims - 1] = builder.constant(layer_.n());
    return 0;
  }

  bool supportsFormatCombination(int32_t pos, const DynamicPluginTensorDesc* tensors,
                                 int32_t n_inputs, int32_t n_outputs) noexcept override {
    if (check_counts(n_inputs, n_outputs)) return false;
    const PluginTensorDesc& tensor = tensors[pos].desc;
    if (tensor.format != TensorFormat::kLINEAR) return false;
    switch (pos) {
      case kX: return is_activation(tensor.type);
      case kSigns:
      case kIndices: return tensor.type == DataType::kINT32;
      case kTable: return tensor.type == DataType::kFLOAT;
      case kScale: return tensor.type == DataType::kHALF;
      default: return tensor.type == tensors[kX].desc.type;
    }
  }

  int32_t configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t n_inputs,
                          const DynamicPluginTensorDesc*, int32_t n_outputs) noexcept override {
    if (check_counts(n_inputs, n_outputs)) return -1;
    for (int input = 0; input < kInputs; ++input)
      if (layer_.check_dims(input, inputs[input].desc.dims)) return -1;
    return 0;
  }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t,
                          const DynamicPluginTensorDesc*, int32_t) const noexcept override {
    const int64_t bytes = einsort_workspace_bytes(rows(inputs[kX].max), layer_.k(), layer_.n(),
                                                  launcher_type(inputs[kX].desc.type));
    if (bytes < 0) refuse("%s", einsort_last_error());
    return bytes < 0 ? 0 : size_t(bytes);
  }

  int32_t onShapeChange(const PluginTensorDesc* inputs, int32_t n_inputs, const PluginTensorDesc*,
                        int32_t n_outputs) noexcept override {
    if (check_counts(n_inputs, n_outputs)) return -1;
    for (int input = 0; input < kInputs; ++input)
      if (layer_.check_dims(input, inputs[input].dims)) return -1;
    return 0;
  }

  int32_t enqueue(const PluginTensorDesc* inputs, const PluginTensorDesc*,
                  const void* const* in, void* const* out, void* workspace,
                  cudaStream_t stream) noexcept override {
    const int failed = einsort_matmul_leader(
        in[kX], in[kSigns], in[kIndices], in[kTable], in[kScale], out[0], rows(inputs[kX].dims),
        layer_.k(), layer_.n(), layer_.d(), layer_.b(), layer_.s(), launcher_type(inputs[kX].type),
        workspace, stream);
    return failed ? refuse("%s", einsort_last_error()) : 0;
  }

  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    for (int i = 0; i < kFields; ++i)
      stored_[i] = PluginField(kFieldNames[i], &layer_.fields[i], PluginFieldType::kINT32, 1);
    collection_ = {kFields, stored_};
    return &collection_;
  }

 private:
  static int check_counts(int n_inputs, int n_outputs) {
    if (n_inputs == kInputs && n_outputs == 1) return 0;
    return refuse("%d inputs and %d outputs; it has %d (x, signs, indices, table, scale) and 1.",
                  n_inputs, n_outputs, kInputs);
  }

  Layer layer_;
  PluginField stored_[kFields];
  PluginFieldCollection collection_;
};

class Creator final : public IPluginCreatorV3One {
 public:
  Creator() {
    for (int i = 0; i < kFields; ++i)
      names_[i] = PluginField(kFieldNames[i], nullptr, PluginFieldType::kINT32, 1);
  }

  IPluginV3* createPlugin(const char*, const PluginFieldCollection* given,
                          TensorRTPhase) noexcept override {
    Layer layer;
    for (int i = 0; i < kFields; ++i)
      if (read(*given, kFieldNames[i], layer.fields[i])) return nullptr;
    if (layer.check()) return nullptr;
    IPluginV3* plugin = new (std::nothrow) MatmulLeader(layer);
    if (!plugin) refuse("no memory is left.");
    return plugin;
  }
  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  // Other fields are let be: parsers hand over all attributes of the node.
  static int read(const PluginFieldCollection& given, const char* name, int32_t& value) {
    for (int i = 0; i < given.nbFields; ++i) {
      const PluginField& field = given.fields[i];
      if (!field.name || std::strcmp(field.name, name)) continue;
      if (field.type != PluginFieldType::kINT32 || field.length != 1 || !field.data)
        return refuse("field %s has type %d and length %d; it must be one INT32.", name,
                      int(field.type), field.length);
      std::memcpy(&value, field.data, sizeof value);
      return 0;
    }
    return refuse("field %s is missing; there must be out_features, in_features, d, b and s.",
                  name);
  }

  PluginField names_[kFields];
  PluginFieldCollection collection_{kFields, names_};
};

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void setLoggerFinder(ILoggerFinder* finder) {
  g_finder = finder;
}

__attribute__((visibility("default"))) IPluginCreatorInterface* const* getCreators(int32_t& n) {
  static Creator creator;
  static IPluginCreatorInterface* const creators[] = {&creator};
  n = 1;
  return creators;
}
}
