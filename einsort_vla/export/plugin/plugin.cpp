// `MatmulCurve`, a TensorRT plugin (IPluginV3): y = x W^T with W in the `curve` form.
//
// Inputs: x (..., in_features) float32, float16 or bfloat16; words (ceil(n_words / 2),) int32, two
// words of 16 bits in each, the first one below; scale (out_features,) int8, the steps' bits.
// Output: x's shape with the last dimension replaced. It needs TensorRT's headers only; the logger
// comes from whoever loads it. Nothing here throws: memory is fixed, or asked for by nothrow.

#include <NvInferRuntime.h>

#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <new>

#include "launch.h"

namespace {

using namespace nvinfer1;

constexpr char kName[] = "MatmulCurve", kVersion[] = "1", kNamespace[] = "einsort";
enum Input { kX, kWords, kScale, kInputs };
constexpr const char* kInputNames[kInputs] = {"x", "words", "scale"};

// What a layer is made of, as it is stored.
struct Fields {
  int32_t out_features, in_features, eighths, window;
  float unit;
};

struct Field {
  const char* name;
  PluginFieldType type;
  size_t offset;
};
constexpr int kFields = 5;
constexpr Field kFieldList[kFields] = {
    {"out_features", PluginFieldType::kINT32, offsetof(Fields, out_features)},
    {"in_features", PluginFieldType::kINT32, offsetof(Fields, in_features)},
    {"eighths", PluginFieldType::kINT32, offsetof(Fields, eighths)},
    {"window", PluginFieldType::kINT32, offsetof(Fields, window)},
    {"unit", PluginFieldType::kFLOAT32, offsetof(Fields, unit)},
};
constexpr size_t kFieldBytes = 4;

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
  Fields fields{};
  int64_t words = 0;  // of 16 bits

  int64_t n() const { return fields.out_features; }
  int64_t k() const { return fields.in_features; }

  EinsortMatrix matrix(const void* words, const void* scale) const {
    return {words, scale, n(), k(), fields.unit, fields.eighths, fields.window};
  }

  int check() {
    const EinsortMatrix own = matrix(nullptr, nullptr);
    words = einsort_count_words(&own);
    return words < 0 ? refuse("%s", einsort_last_error()) : 0;
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
    const int64_t expected = input == kWords ? (words + 1) / 2 : n();
    if (rank != 1)
      return refuse("%s has %d dimensions; it must have 1.", kInputNames[input], rank);
    if (dims[0] != -1 && dims[0] != expected)
      return refuse(
          "%s has %lld elements; with out_features=%d in_features=%d eighths=%d it must have %lld.",
          kInputNames[input], (long long)dims[0], fields.out_features, fields.in_features,
          fields.eighths, (long long)expected);
    return 0;
  }

  int check_dims(int input, const Dims& dims) const {
    return check_dims(input, dims.d, dims.nbDims);
  }
};

unsigned char* bytes(Fields& fields) { return reinterpret_cast<unsigned char*>(&fields); }

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

class MatmulCurve final : public IPluginV3,
                           public IPluginV3OneCore,
                           public IPluginV3OneBuild,
                           public IPluginV3OneRuntime {
 public:
  explicit MatmulCurve(const Layer& layer) : layer_(layer) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  IPluginV3* clone() noexcept override { return new (std::nothrow) MatmulCurve(layer_); }

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
      case kWords: return tensor.type == DataType::kINT32;
      case kScale: return tensor.type == DataType::kINT8;
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
    const EinsortMatrix matrix = layer_.matrix(nullptr, nullptr);
    const int64_t bytes = einsort_workspace_bytes(&matrix, rows(inputs[kX].max),
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
    const EinsortMatrix matrix = layer_.matrix(in[kWords], in[kScale]);
    const int failed =
        einsort_matmul_curve(&matrix, in[kX], out[0], rows(inputs[kX].dims),
                             launcher_type(inputs[kX].type), workspace, stream);
    return failed ? refuse("%s", einsort_last_error()) : 0;
  }

  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    for (int i = 0; i < kFields; ++i)
      stored_[i] = PluginField(kFieldList[i].name, bytes(layer_.fields) + kFieldList[i].offset,
                               kFieldList[i].type, 1);
    collection_ = {kFields, stored_};
    return &collection_;
  }

 private:
  static int check_counts(int n_inputs, int n_outputs) {
    if (n_inputs == kInputs && n_outputs == 1) return 0;
    return refuse("%d inputs and %d outputs; it has %d (x, words, scale) and 1.",
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
      names_[i] = PluginField(kFieldList[i].name, nullptr, kFieldList[i].type, 1);
  }

  IPluginV3* createPlugin(const char*, const PluginFieldCollection* given,
                          TensorRTPhase) noexcept override {
    Layer layer;
    for (int i = 0; i < kFields; ++i)
      if (read(*given, kFieldList[i], bytes(layer.fields) + kFieldList[i].offset)) return nullptr;
    if (layer.check()) return nullptr;
    IPluginV3* plugin = new (std::nothrow) MatmulCurve(layer);
    if (!plugin) refuse("no memory is left.");
    return plugin;
  }
  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  // Other fields are let be: parsers hand over all attributes of the node.
  static int read(const PluginFieldCollection& given, const Field& wanted, unsigned char* value) {
    for (int i = 0; i < given.nbFields; ++i) {
      const PluginField& field = given.fields[i];
      if (!field.name || std::strcmp(field.name, wanted.name)) continue;
      if (field.type != wanted.type || field.length != 1 || !field.data)
        return refuse("field %s has type %d and length %d; it must be one %s.", wanted.name,
                      int(field.type), field.length,
                      wanted.type == PluginFieldType::kINT32 ? "INT32" : "FLOAT32");
      std::memcpy(value, field.data, kFieldBytes);
      return 0;
    }
    return refuse(
        "field %s is missing; there must be out_features, in_features, eighths, window and unit.",
        wanted.name);
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
