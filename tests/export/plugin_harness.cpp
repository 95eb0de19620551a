// What TensorRT does with the plugin, without TensorRT: prints a line "name: value" for each step.
// Usage: plugin_harness LIBRARY [file of a case, as tests/kernels/emulation/run.cpp reads it].

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

IPluginV3* create(IPluginCreatorV3One& creator, const std::vector<std::string>& names,
                  const std::vector<int32_t>& values, TensorRTPhase phase,
                  PluginFieldType type = PluginFieldType::kINT32) {
  std::vector<PluginField> fields;
  for (size_t i = 0; i < names.size(); ++i)
    fields.emplace_back(names[i].c_str(), &values[i], type, 1);
  const PluginFieldCollection given{int32_t(fields.size()), fields.data()};
  return creator.createPlugin("layer", &given, phase);
}

const std::vector<std::string> kNames = {"out_features", "in_features", "d", "b", "s"};

template <typename T>
T& capability(IPluginV3& plugin, PluginCapabilityType type) {
  return *static_cast<T*>(plugin.getCapabilityInterface(type));
}

Shapes shapes(const std::vector<int32_t>& f, std::vector<int64_t> x) {
  const int64_t n = f[0], k = f[1], d = f[2], b = f[3], s = f[4];
  return {x, {(n * k + 31) / 32 + 1}, {(k * ((n + d - 1) / d) * b + 31) / 32 + 1},
          {int64_t(1) << (s + b), d}, {n}};
}

constexpr DataType kTypes[] = {DataType::kFLOAT, DataType::kINT32, DataType::kINT32,
                               DataType::kFLOAT, DataType::kHALF};

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
      {"signs int8", 1, DataType::kINT8, TensorFormat::kLINEAR},
      {"table half", 3, DataType::kHALF, TensorFormat::kLINEAR},
      {"scale float", 4, DataType::kFLOAT, TensorFormat::kLINEAR},
      {"y float", 5, DataType::kFLOAT, TensorFormat::kLINEAR},
      {"y half", 5, DataType::kHALF, TensorFormat::kLINEAR},
  };
  for (const auto& one : tries) {
    std::vector<DynamicPluginTensorDesc> all;
    for (int i = 0; i < 5; ++i) all.push_back(tensor(kTypes[i], given[i]));
    all.push_back(tensor(DataType::kFLOAT, {1}));
    all[one.position].desc.type = one.type;
    all[one.position].desc.format = one.format;
    std::printf("format %s: %d\n", one.label,
                build.supportsFormatCombination(one.position, all.data(), 5, 1));
  }
  std::vector<DynamicPluginTensorDesc> all;
  for (int i = 0; i < 5; ++i) all.push_back(tensor(kTypes[i], given[i]));
  all.push_back(all[0]);
  bool usual = true;
  for (int i = 0; i < 6; ++i) usual &= build.supportsFormatCombination(i, all.data(), 5, 1);
  std::printf("format usual: %d\n", usual);
}

void bad_fields(IPluginCreatorV3One& creator) {
  const std::vector<std::vector<int32_t>> bad = {
      {0, 33, 2, 2, 6}, {67, 33, 3, 2, 6}, {67, 33, 2, 0, 8}, {67, 33, 1, 14, 1}, {67, 33, 4, 4, 10},
  };
  for (const auto& fields : bad)
    std::printf("bad: %d\n", create(creator, kNames, fields, TensorRTPhase::kBUILD) != nullptr);
  std::vector<std::string> names(kNames.begin(), kNames.end() - 1);
  std::printf("bad: %d\n", create(creator, names, {67, 33, 2, 2}, TensorRTPhase::kBUILD) != nullptr);
  std::printf("bad: %d\n", create(creator, kNames, {67, 33, 2, 2, 6}, TensorRTPhase::kBUILD,
                                  PluginFieldType::kFLOAT32) != nullptr);
}

// Builds, stores and makes again a layer, as an engine does; then, with a case, runs it.
int use(IPluginCreatorV3One& creator, const std::vector<int32_t>& fields, DataType type,
        const std::vector<int64_t>& x, std::FILE* file) {
  IPluginV3* built = create(creator, kNames, fields, TensorRTPhase::kBUILD);
  auto& build = capability<IPluginV3OneBuild>(*built, PluginCapabilityType::kBUILD);
  auto& core = capability<IPluginV3OneCore>(*built, PluginCapabilityType::kCORE);
  std::printf("core: %s %s %s\n", core.getPluginName(), core.getPluginVersion(),
              core.getPluginNamespace());
  const Shapes given = shapes(fields, {-1, -1, fields[1]});
  infer(*built, "shapes", given);
  infer(*built, "shapes rank 1", shapes(fields, {fields[1]}));
  Shapes wrong = given;
  wrong[0].back() += 1, infer(*built, "wrong x", wrong);
  wrong = given, wrong[1][0] -= 1, infer(*built, "wrong signs", wrong);
  wrong = given, wrong[3].pop_back(), infer(*built, "wrong table", wrong);
  infer(*built, "wrong count", Shapes(given.begin(), given.end() - 1));
  DataType types[5], output;
  std::memcpy(types, kTypes, sizeof types);
  for (const DataType one : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    types[0] = one;
    build.getOutputDataTypes(&output, 1, types, 5);
    std::printf("type: %d\n", output == one);
  }
  formats(build, given);
  std::vector<DynamicPluginTensorDesc> inputs;
  for (int i = 0; i < 5; ++i) inputs.push_back(tensor(i ? kTypes[i] : type, given[i], 64));
  const DynamicPluginTensorDesc y = tensor(type, {-1, -1, fields[0]}, 64);
  std::printf("configure: %d\n", build.configurePlugin(inputs.data(), 5, &y, 1));
  std::vector<char> workspace(build.getWorkspaceSize(inputs.data(), 5, &y, 1));
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
    std::printf("field %s: %d\n", again->fields[i].name,
                *static_cast<const int32_t*>(again->fields[i].data));

  PluginTensorDesc now[5], out = tensor(type, {x[0], x[1], fields[0]}).desc;
  const Shapes real = shapes(fields, x);
  for (int i = 0; i < 5; ++i) now[i] = tensor(i ? kTypes[i] : type, real[i]).desc;
  std::printf("shape change: %d\n", runtime.onShapeChange(now, 5, &out, 1));
  PluginTensorDesc none[5];
  std::memcpy(static_cast<void*>(none), now, sizeof now);
  none[0].dims.d[0] = 0;
  std::printf("no rows: %d\n",
              runtime.enqueue(none, &out, std::vector<void*>(5).data(), std::vector<void*>(1).data(),
                              nullptr, nullptr));
  if (!file) {
    void* pointers[5] = {};
    std::printf("no driver: %d\n", runtime.enqueue(now, &out, pointers, pointers, nullptr, nullptr));
    delete copy;
    return 0;
  }
  std::vector<std::vector<char>> data(5);
  const void* in[5];
  for (int i = 0; i < 5; ++i) {
    int64_t bytes = now[i].type == DataType::kHALF || now[i].type == DataType::kBF16 ? 2 : 4;
    for (const int64_t dim : real[i]) bytes *= dim;
    data[i].resize(bytes);
    if (std::fread(data[i].data(), 1, bytes, file) != size_t(bytes)) return 2;
    in[i] = data[i].data();
  }
  std::vector<char> result(x[0] * x[1] * fields[0] * (type == DataType::kFLOAT ? 4 : 2));
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
  return use(creator, {67, 33, 2, 2, 6}, DataType::kHALF, {3, 7, 33}, file);
}
