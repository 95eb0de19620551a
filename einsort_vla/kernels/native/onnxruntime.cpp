// ONNX Runtime's operators of the domain `einsort`, on CPUs: `MatmulCurve` multiplies from the coded
// streams as they lie in the session, and `Rotate` turns what is multiplied. docs/export.md has both.
//
// SessionOptions.register_custom_ops_library(PATH) calls RegisterCustomOps.
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>

#include "einsort.h"
#include "kernels.h"
#include "onnxruntime_api.h"

namespace einsort {
namespace {

using ort::Status;

constexpr const char* kDomain = "einsort";
constexpr int kMostAxes = 16;
constexpr int64_t kMostRows = int64_t{1} << 40;
constexpr int64_t kNumbersAThread = 1 << 13;  // to turn; less is not worth one

// One text, which begins with the node.
__attribute__((format(printf, 3, 4))) Status* fault(const ort::Api& api, const char* node,
                                                    const char* format, ...) {
  char text[512];
  const int begun = snprintf(text, sizeof(text), "einsort: %s: ", node);
  va_list values;
  va_start(values, format);
  vsnprintf(text + begun, sizeof(text) - begun, format, values);
  va_end(values);
  return api.error(ort::kInvalidArgument, text);
}

// Threads of the session, as many tasks as there are processors.
class Pool {
 public:
  Pool(const ort::Api& api, const ort::Context* context) : api_(api), context_(context) {
    threads_ = {run, this, std::max<int64_t>(1, sysconf(_SC_NPROCESSORS_ONLN))};
  }
  const einsort_threads* threads() const { return &threads_; }

 private:
  static void run(void* raw, einsort_task task, void* context, int64_t n) {
    const Pool& own = *static_cast<Pool*>(raw);
    struct Work {
      einsort_task task;
      void* context;
    } work = {task, context};
    const auto one = [](void* with, size_t k) {
      static_cast<Work*>(with)->task(static_cast<Work*>(with)->context, k);
    };
    if (Status* failed = own.api_.parallel(own.context_, one, n, &work)) {
      own.api_.release(failed);  // none has run
      for (int64_t k = 0; k < n; ++k) task(context, k);
    }
  }

  const ort::Api& api_;
  const ort::Context* context_;
  einsort_threads threads_;
};

struct Tensor {
  int64_t sizes[kMostAxes];
  size_t rank;
  ort::Type type;
  void* data;  // of inputs alone; where constants lie, a run says

  bool is(ort::Type wanted, std::initializer_list<int64_t> shape) const {
    return type == wanted && rank == shape.size() && std::equal(shape.begin(), shape.end(), sizes);
  }
};

// What all kernels keep: who they are.
struct Kernel {
  const ort::Api* api;
  char node[256];

  Status* name(const ort::Api* own, const ort::KernelInfo* info, const char* op) {
    api = own;
    size_t size = sizeof(node);
    if (Status* failed = api->node_name(info, node, &size)) {
      api->release(failed);  // a longer name
      size = 0;
    }
    if (size < 2) snprintf(node, sizeof(node), "a node of %s", op);
    return nullptr;
  }

  Status* read(const ort::Value* value, Tensor* out) const {
    ort::Shape* shape;
    if (Status* failed = api->shape(value, &shape)) return failed;
    Status* failed = api->type(shape, &out->type);
    if (!failed) failed = api->rank(shape, &out->rank);
    if (!failed && out->rank > kMostAxes)
      failed = fault(*api, node, "an input has more than %d axes", kMostAxes);
    if (!failed) failed = api->sizes(shape, out->sizes, out->rank);
    if (!failed) failed = api->data(value, &out->data);
    api->release(shape);
    return failed;
  }

  Status* read_constant(const ort::KernelInfo* info, size_t index, const char* name,
                        Tensor* out) const {
    int is_constant = 0;
    const ort::Value* value = nullptr;
    if (Status* failed = api->constant(info, index, &is_constant, &value)) return failed;
    if (!is_constant) return fault(*api, node, "%s must be a constant of the graph", name);
    return read(value, out);
  }

  // Where a constant lies, which a run says.
  template <class T>
  Status* find_constant(const ort::Context* context, size_t index, const T** out) const {
    const ort::Value* value;
    void* data;
    if (Status* failed = api->input(context, index, &value)) return failed;
    if (Status* failed = api->data(value, &data)) return failed;
    *out = static_cast<const T*>(data);
    return nullptr;
  }

  // The inputs of a run, and room for its outputs: (..., columns) to (..., rows).
  Status* open(ort::Context* context, int64_t columns, int64_t rows, const float** x, float** y,
               int64_t* n) const {
    const ort::Value* value;
    Tensor given;
    if (Status* failed = api->input(context, 0, &value)) return failed;
    if (Status* failed = read(value, &given)) return failed;
    const int64_t width = given.rank ? given.sizes[given.rank - 1] : 0;
    if (width != columns)
      return fault(*api, node, "it takes (..., %lld) inputs, these are (..., %lld)",
                   static_cast<long long>(columns), static_cast<long long>(width));
    *n = 1;
    for (size_t k = 0; k + 1 < given.rank; ++k) *n *= given.sizes[k];
    given.sizes[given.rank - 1] = rows;
    ort::Value* made;
    if (Status* failed = api->output(context, 0, given.sizes, given.rank, &made)) return failed;
    void* out;
    if (Status* failed = api->data(made, &out)) return failed;
    *x = static_cast<const float*>(given.data);
    *y = static_cast<float*>(out);
    return nullptr;
  }
};

// MatmulCurve(x, words, scale)
struct Matmul : Kernel {
  static constexpr const char* kName = "MatmulCurve";
  static constexpr size_t kInputs = 3;
  static constexpr ort::Type kTypes[] = {ort::kFloat, ort::kInt32, ort::kInt8};
  einsort_matrix matrix;  // but for where its parts lie

  Status* create(const ort::KernelInfo* info) {
    const char* names[] = {"out_features", "in_features", "eighths", "window"};
    int64_t numbers[4];
    for (int k = 0; k < 4; ++k) {
      if (Status* failed = api->attribute(info, names[k], &numbers[k])) return failed;
      if (numbers[k] < 1 || numbers[k] > kMostRows)
        return fault(*api, node, "%s is %lld", names[k], static_cast<long long>(numbers[k]));
    }
    float unit;
    if (Status* failed = api->attribute(info, "unit", &unit)) return failed;
    Tensor words, scale;
    if (Status* failed = read_constant(info, 1, "words", &words)) return failed;
    if (Status* failed = read_constant(info, 2, "scale", &scale)) return failed;
    if (!scale.is(ort::kInt8, {numbers[0]}))
      return fault(*api, node, "scale must have a byte for each of %lld outputs",
                   static_cast<long long>(numbers[0]));
    if (words.type != ort::kInt32 || words.rank != 1)
      return fault(*api, node, "words must be a list of int32");
    matrix = {};
    matrix.unit = unit;
    matrix.rows = numbers[0];
    matrix.columns = numbers[1];
    matrix.eighths = static_cast<int32_t>(std::min<int64_t>(numbers[2], INT32_MAX));
    matrix.window = static_cast<int32_t>(std::min<int64_t>(numbers[3], INT32_MAX));
    matrix.n_words = 2 * words.sizes[0];
    const char* found = einsort_fault(&matrix);
    if (found) {  // an odd number of words has half a word of zeros behind it
      --matrix.n_words;
      found = einsort_fault(&matrix);
    }
    if (!found) return nullptr;
    return fault(*api, node, "%s (%lld x %lld, %d eighths of a bit, window %d, %lld int32)", found,
                 static_cast<long long>(matrix.rows), static_cast<long long>(matrix.columns),
                 matrix.eighths, matrix.window, static_cast<long long>(words.sizes[0]));
  }

  Status* compute(ort::Context* context) const {
    const float* x = nullptr;
    float* y = nullptr;
    int64_t n = 0;
    if (Status* failed = open(context, matrix.columns, matrix.rows, &x, &y, &n)) return failed;
    einsort_matrix own = matrix;
    if (Status* failed = find_constant(context, 1, &own.words)) return failed;
    if (Status* failed = find_constant(context, 2, &own.scale)) return failed;
    const Pool pool(*api, context);
    if (einsort_multiply(&own, x, n, nullptr, y, EINSORT_INT16, pool.threads()))
      return fault(*api, node, "no memory to multiply %lld rows", static_cast<long long>(n));
    return nullptr;
  }
};

// Rotate(x, signs, first, second, cosine): the signs, then first x second x cosine, of which the
// first two make up a Walsh-Hadamard matrix, which needs no numbers here.
struct Rotate : Kernel {
  static constexpr const char* kName = "Rotate";
  static constexpr size_t kInputs = 5;
  static constexpr ort::Type kTypes[] = {ort::kFloat, ort::kFloat, ort::kFloat, ort::kFloat,
                                         ort::kFloat};
  int64_t columns, m;

  Status* create(const ort::KernelInfo* info) {
    const char* names[] = {"x", "signs", "first", "second", "cosine"};
    Tensor own[kInputs];
    int64_t width = 1;
    for (size_t k = 1; k < kInputs; ++k) {
      if (Status* failed = read_constant(info, k, names[k], &own[k])) return failed;
      const int64_t size = own[k].rank ? own[k].sizes[0] : 0;
      if (size < 1 || size > kMostRows || own[k].type != ort::kFloat)
        return fault(*api, node, "%s is no rotation's", names[k]);
      if (k > 1 && !own[k].is(ort::kFloat, {size, size}))
        return fault(*api, node, "%s must be a square matrix", names[k]);
      if (k > 1 && __builtin_mul_overflow(width, size, &width)) width = 0;
    }
    columns = own[1].sizes[0];
    m = own[4].sizes[0];
    const int64_t size = columns / m;
    if (own[1].rank != 1 || width != columns || (size & (size - 1)))
      return fault(*api, node, "its matrices do not make up a rotation of %lld",
                   static_cast<long long>(columns));
    return nullptr;
  }

  Status* compute(ort::Context* context) const {
    const float* x = nullptr;
    float* y = nullptr;
    int64_t n = 0;
    if (Status* failed = open(context, columns, columns, &x, &y, &n)) return failed;
    const Pool pool(*api, context);
    const einsort_threads& threads = *pool.threads();
    const int64_t worth = std::max<int64_t>(1, n * columns / kNumbersAThread);
    Work work = {x, y, nullptr, nullptr, columns, m, n, std::min({threads.n, n, worth}), false};
    if (Status* failed = find_constant(context, 1, &work.signs)) return failed;
    if (Status* failed = find_constant(context, 4, &work.cosine)) return failed;
    const einsort_task task = [](void* raw, int64_t k) { static_cast<Work*>(raw)->turn(k); };
    if (work.parts == 1)
      task(&work, 0);
    else if (work.parts > 1)
      threads.run(threads.threads, task, &work, work.parts);
    return work.failed ? fault(*api, node, "no memory to turn %lld numbers",
                               static_cast<long long>(columns))
                       : nullptr;
  }

  struct Work {
    const float* x;
    float* y;
    const float *signs, *cosine;
    int64_t columns, m, n, parts;
    bool failed;

    void turn(int64_t part) {
      float* scratch = static_cast<float*>(malloc(2 * columns * sizeof(float)));
      if (!scratch) __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
      for (int64_t i = n * part / parts; scratch && i < n * (part + 1) / parts; ++i) {
        float* own = y + i * columns;
        for (int64_t k = 0; k < columns; ++k) own[k] = x[i * columns + k] * signs[k];
        here().turn(own, cosine, false, columns, m, scratch);
      }
      free(scratch);
    }
  };
};

template <class Own>
constexpr ort::Operator described() {
  using ort::Operator;
  Operator op = {};
  op.version = ort::kVersion;
  op.name = [](const Operator*) { return Own::kName; };
  op.provider = [](const Operator*) -> const char* { return nullptr; };
  op.input_type = [](const Operator*, size_t k) { return Own::kTypes[k]; };
  op.inputs = [](const Operator*) { return Own::kInputs; };
  op.output_type = [](const Operator*, size_t) { return ort::kFloat; };
  op.outputs = [](const Operator*) { return size_t{1}; };
  op.input_kind = op.output_kind = op.input_memory = [](const Operator*, size_t) { return 0; };
  op.least_inputs = op.least_outputs = [](const Operator*) { return 1; };
  op.are_inputs_alike = op.are_outputs_alike = [](const Operator*) { return 1; };
  op.try_create = [](const Operator*, const ort::Api* api, const ort::KernelInfo* info,
                     void** made) -> Status* {
    Own* own = static_cast<Own*>(malloc(sizeof(Own)));
    if (!own) return api->error(ort::kFail, "einsort: no memory for a node");
    Status* failed = own->name(api, info, Own::kName);
    if (!failed) failed = own->create(info);
    if (failed)
      free(own);
    else
      *made = own;
    return failed;
  };
  op.try_compute = [](void* kernel, ort::Context* context) {
    return static_cast<const Own*>(kernel)->compute(context);
  };
  op.destroy = free;
  return op;
}

constexpr ort::Operator kOperators[] = {described<Matmul>(), described<Rotate>()};

}  // namespace
}  // namespace einsort

// The domain is kept for good, as a session may outlive its options.
extern "C" __attribute__((visibility("default"))) einsort::ort::Status* RegisterCustomOps(
    einsort::ort::SessionOptions* options, const einsort::ort::Base* base) {
  using namespace einsort;
  const ort::Api* api = base->api(ort::kVersion);
  if (!api) {
    char text[128];
    snprintf(text, sizeof(text), "einsort needs ONNX Runtime 1.%u or newer; this is %s",
             ort::kVersion, base->version());
    return base->api(1)->error(ort::kNotImplemented, text);
  }
  ort::Domain* domain;
  if (ort::Status* failed = api->create_domain(kDomain, &domain)) return failed;
  for (const ort::Operator& op : kOperators)
    if (ort::Status* failed = api->add(domain, &op)) return failed;
  return api->add(options, domain);
}
