// What TensorRT does with the plugin, without TensorRT: prints a line "name: value" for each step.
// Usage: plugin_harness LIBRARY [file with x, words and scale].

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace {

class Logger final : public ILogger {
 public:
  void log(Severity, const char* message) noexcept override { std::printf("log: %s\n", message); }
};

class Finder final : public ILoggerFinder {
 public:
  ILogger* findLogger() override { return &logger_; }

 private:
  Logger logger_;
};

// -1 stands for a dimension that is not known.
class Dimension final : public IDimensionExpr, public apiv::VDimensionExpr {
 public:
  explicit Dimension(int64_t value) : value_(value) { mImpl = this; }
  bool isConstant() const override { return value_ >= 0; }
  int64_t getConstantValue() const override { return value_; }
  bool isSizeTensor() const override { return false; }

 private:
  int64_t value_;
};

class Builder final : public IExprBuilder, public apiv::VExprBuilder {
 public:
  Builder() { mImpl = this; }
  const IDimensionExpr* constant(int64_t value) override { return &made_.emplace_back(value); }
  const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&,
                                  const IDimensionExpr&) override {
    return nullptr;
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                          const IDimensionExpr&) override {
    return nullptr;
  }
  DimsExprs dims(const std::vector<int64_t>& values) {
    DimsExprs all{int32_t(values.size()), {}};
    for (size_t i = 0; i < values.size(); ++i) all.d[i] = constant(values[i]);
    return all;
  }

 private:
  std::deque<Dimension> made_;
};

using Shapes = std::vector<std::vector<int64_t>>;

Dims dims(const std::vector<int64_t>& values) {
  Dims all{int32_t(values.size()), {}};
  for (size_t i = 0; i < values.size(); ++i) all.d[i] = values[i];
  return all;
}

DynamicPluginTensorDesc tensor(DataType type, const std::vector<int64_t>& shape, int64_t most = 0) {
  DynamicPluginTensorDesc made{};
  made.desc.type = type;
  made.desc.format = TensorFormat::kLINEAR;
  made.desc.dims = made.min = made.opt = made.max = dims(shape);
  for (int i = 0; i < made.max.nbDims; ++i)
    if (made.max.d[i] < 0) made.min.d[i] = 1, made.opt.d[i] = made.max.d[i] = most;
  return made;
}

struct Fields {
  int32_t out_features, in_features, eighths, window;
  float unit;
};
const std::vector<std::string> kNames = {"out_features", "in_features", "eighths", "window",
                                         "unit"};

// `values` are the fields of those names, one after the other.
IPluginV3* create(IPluginCreatorV3One& creator, const Fields& values, TensorRTPhase phase,
                  size_t count = kNames.size(), PluginFieldType real = PluginFieldType::kFLOAT32) {
  std::vector<PluginField> fields;
  const auto* data = reinterpret_cast<const char*>(&values);
  for (size_t i = 0; i < count; ++i)
    fields.emplace_back(kNames[i].c_str(), data + 4 * i, i < 4 ? PluginFieldType::kINT32 : real, 1);
  const PluginFieldCollection given{int32_t(fields.size()), fields.data()};
  return creator.createPlugin("layer", &given, phase);
}

template <typename T>
T& capability(IPluginV3& plugin, PluginCapabilityType type) {
  return *static_cast<T*>(plugin.getCapabilityInterface(type));
}

// Of less than a segment of 128 outputs.
Shapes shapes(const Fields& f, std::vector<int64_t> x) {
  const int64_t words = int64_t(f.in_features) * ((f.out_features * f.eighths / 8 + 15) / 16);
  return {x, {(words + 1) / 2}, {f.out_features}};
}

constexpr int kInputs = 3;
constexpr DataType kTypes[] = {DataType::kFLOAT, DataType::kINT32, DataType::kINT8};

void infer(IPluginV3& plugin, const char* label, const Shapes& given) {
  auto& build = capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  Builder builder;
  std::vector<DimsExprs> inputs;
  for (const auto& shape : given) inputs.push_back(builder.dims(shape));
  DimsExprs output{};
  const int result = build.getOutputShapes(inputs.data(), int32_t(inputs.size()), nullptr, 0,
                                           &output, 1, builder);
  std::printf("%s: %d", label, result);
  for (int i = 0; !result && i < output.nbDims; ++i)
    std::printf(" %lld", (long long)output.d[i]->getConstantValue());
  std::printf("\n");
}

void formats(IPluginV3OneBuild& build, const Shapes& given) {
  const struct {
    const char* label;
    int position;
    DataType type;
    TensorFormat format;
  } tries[] = {
      {"x float", 0, DataType::kFLOAT, TensorFormat::kLINEAR},
      {"x half", 0, DataType::kHALF, TensorFormat::kLINEAR},
      {"x bfloat", 0, DataType::kBF16, TensorFormat::kLINEAR},
      {"x int8", 0, DataType::kINT8, TensorFormat::kLINEAR},
      {"x chw32", 0, DataType::kHALF, TensorFormat::kCHW32},
      {"words int8", 1, DataType::kINT8, TensorFormat::kLINEAR},
      {"scale float", 2, DataType::kFLOAT, TensorFormat::kLINEAR},
      {"y float", 3, DataType::kFLOAT, TensorFormat::kLINEAR},
      {"y half", 3, DataType::kHALF, TensorFormat::kLINEAR},
  };
  for (const auto& one : tries) {
    std::vector<DynamicPluginTensorDesc> all;
    for (int i = 0; i < kInputs; ++i) all.push_back(tensor(kTypes[i], given[i]));
    all.push_back(tensor(DataType::kFLOAT, {1}));
    all[one.position].desc.type = one.type;
    all[one.position].desc.format = one.format;
    std::printf("format %s: %d\n", one.label,
                build.supportsFormatCombination(one.position, all.data(), kInputs, 1));
  }
  std::vector<DynamicPluginTensorDesc> all;
  for (int i = 0; i < kInputs; ++i) all.push_back(tensor(kTypes[i], given[i]));
  all.push_back(all[0]);
  bool usual = true;
  for (int i = 0; i <= kInputs; ++i)
    usual &= build.supportsFormatCombination(i, all.data(), kInputs, 1);
  std::printf("format usual: %d\n", usual);
}

void bad_fields(IPluginCreatorV3One& creator) {
  const Fields bad[] = {{0, 33, 17, 13, 1},      {67, 33, 7, 13, 1},  {67, 33, 41, 13, 1},
                        {67, 33, 17, 11, 1},     {67, 33, 48, 13, 1}, {67, 33, 56, 6, 1},
                        {67, 33, 17, 13, -1},    {67, 33, 17, 13, 1 / 0.0f},
                        {1 << 30, 1, 17, 13, 1}, {1 << 20, 1 << 20, 17, 13, 1}};
  for (const Fields& fields : bad)
    std::printf("bad: %d\n", create(creator, fields, TensorRTPhase::kBUILD) != nullptr);
  const Fields good = {67, 33, 17, 13, 1};
  std::printf("bad: %d\n", create(creator, good, TensorRTPhase::kBUILD, 4) != nullptr);
  std::printf("bad: %d\n", create(creator, good, TensorRTPhase::kBUILD, kNames.size(),
                                  PluginFieldType::kINT32) != nullptr);
}

// Builds, stores and makes again a layer, as an engine does; then, with a case, runs it.
int use(IPluginCreatorV3One& creator, const Fields& fields, DataType type,
        const std::vector<int64_t>& x, std::FILE* file) {
  IPluginV3* built = create(creator, fields, TensorRTPhase::kBUILD);
  auto& build = capability<IPluginV3OneBuild>(*built, PluginCapabilityType::kBUILD);
  auto& core = capability<IPluginV3OneCore>(*built, PluginCapabilityType::kCORE);
  std::printf("core: %s %s %s\n", core.getPluginName(), core.getPluginVersion(),
              core.getPluginNamespace());
  const Shapes given = shapes(fields, {-1, -1, fields.in_features});
  infer(*built, "shapes", given);
  infer(*built, "shapes rank 1", shapes(fields, {fields.in_features}));
  Shapes wrong = given;
  wrong[0].back() += 1, infer(*built, "wrong x", wrong);
  wrong = given, wrong[1][0] -= 1, infer(*built, "wrong words", wrong);
  wrong = given, wrong[2].push_back(1), infer(*built, "wrong scale", wrong);
  infer(*built, "wrong count", Shapes(given.begin(), given.end() - 1));
  DataType types[kInputs], output;
  std::memcpy(types, kTypes, sizeof types);
  for (const DataType one : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    types[0] = one;
    build.getOutputDataTypes(&output, 1, types, kInputs);
    std::printf("type: %d\n", output == one);
  }
  formats(build, given);
  std::vector<DynamicPluginTensorDesc> inputs;
  for (int i = 0; i < kInputs; ++i) inputs.push_back(tensor(i ? kTypes[i] : type, given[i], 64));
  const DynamicPluginTensorDesc y = tensor(type, {-1, -1, fields.out_features}, 64);
  std::printf("configure: %d\n", build.configurePlugin(inputs.data(), kInputs, &y, 1));
  std::vector<char> workspace(build.getWorkspaceSize(inputs.data(), kInputs, &y, 1));
  std::printf("workspace: %zu\n", workspace.size());

  auto& stored = capability<IPluginV3OneRuntime>(*built, PluginCapabilityType::kRUNTIME);
  IPluginV3* made = creator.createPlugin("layer", stored.getFieldsToSerialize(),
                                         TensorRTPhase::kRUNTIME);
  delete built;  // with the fields it stored
  IPluginV3* copy = capability<IPluginV3OneRuntime>(*made, PluginCapabilityType::kRUNTIME)
                        .attachToContext(nullptr);
  delete made;
  auto& runtime = capability<IPluginV3OneRuntime>(*copy, PluginCapabilityType::kRUNTIME);
  const PluginFieldCollection* again = runtime.getFieldsToSerialize();
  for (int i = 0; i < again->nbFields; ++i)
    std::printf("field %s: %g\n", again->fields[i].name,
                again->fields[i].type == PluginFieldType::kINT32
                    ? *static_cast<const int32_t*>(again->fields[i].data)
                    : *static_cast<const float*>(again->fields[i].data));

  PluginTensorDesc now[kInputs], out = tensor(type, {x[0], x[1], fields.out_features}).desc;
  const Shapes real = shapes(fields, x);
  for (int i = 0; i < kInputs; ++i) now[i] = tensor(i ? kTypes[i] : type, real[i]).desc;
  std::printf("shape change: %d\n", runtime.onShapeChange(now, kInputs, &out, 1));
  PluginTensorDesc none[kInputs];
  std::memcpy(static_cast<void*>(none), now, sizeof now);
  none[0].dims.d[0] = 0;
  const void* no_input[kInputs] = {};
  void* no_output[1] = {};
  std::printf("no rows: %d\n",
              runtime.enqueue(none, &out, no_input, no_output, nullptr, nullptr));
  if (!file) {
    void* pointers[kInputs] = {};
    std::printf("no driver: %d\n",
                runtime.enqueue(now, &out, pointers, pointers, nullptr, nullptr));
    delete copy;
    return 0;
  }
  std::vector<std::vector<char>> data(kInputs);
  const void* in[kInputs];
  for (int i = 0; i < kInputs; ++i) {
    int64_t bytes = now[i].type == DataType::kINT8 ? 1 : now[i].type == DataType::kHALF ? 2 : 4;
    for (const int64_t dim : real[i]) bytes *= dim;
    data[i].resize(bytes);
    if (std::fread(data[i].data(), 1, bytes, file) != size_t(bytes)) return 2;
    in[i] = data[i].data();
  }
  std::vector<char> result(x[0] * x[1] * fields.out_features * (type == DataType::kFLOAT ? 4 : 2));
  void* outputs[] = {result.data()};
  if (runtime.enqueue(now, &out, in, outputs, workspace.data(), nullptr)) return 3;
  std::printf("y:");
  for (const char byte : result) std::printf(" %02x", (unsigned char)byte);
  std::printf("\n");
  delete copy;
  return 0;
}

}  // namespace

int main(int n, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) return std::fprintf(stderr, "%s\n", dlerror()), 1;
  const auto set_finder =
      reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"));
  const auto get = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(
      dlsym(library, "getCreators"));
  if (!set_finder || !get) return 1;
  static Finder finder;
  set_finder(&finder);
  int32_t count = 0;
  IPluginCreatorInterface* const* creators = get(count);
  auto& creator = *static_cast<IPluginCreatorV3One*>(creators[0]);
  std::printf("creators: %d %s %s %s %s\n", count, creator.getInterfaceInfo().kind,
              creator.getPluginName(), creator.getPluginVersion(), creator.getPluginNamespace());
  for (int i = 0; i < creator.getFieldNames()->nbFields; ++i)
    std::printf("wants: %s\n", creator.getFieldNames()->fields[i].name);
  bad_fields(creator);
  std::FILE* file = n > 2 ? std::fopen(arguments[2], "rb") : nullptr;
  return use(creator, {67, 33, 17, 13, 0.75f}, DataType::kHALF, {3, 7, 33}, file);
}
