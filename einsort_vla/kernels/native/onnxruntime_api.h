// The part of ONNX Runtime's C interface that its library of operators takes; no header of it is
// needed, and none of its libraries.
//
// `OrtApi` is a table of functions to which each release appends: an index is fixed for good. What
// is used here is in version 17 of it (ONNX Runtime 1.17) and later ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace einsort {
namespace ort {

constexpr uint32_t kVersion = 17;

struct Status;  // what went wrong; null if nothing did
struct Value;
struct Shape;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct Context;  // of one run of a kernel

enum Code { kFail = 1, kInvalidArgument = 2, kNotImplemented = 9 };
enum Type { kFloat = 1, kInt8 = 3, kInt32 = 6 };

// OrtApi, by index.
class Api {
 public:
  Status* error(Code code, const char* text) const { return at<0, Status*>(code, text); }
  Status* create_domain(const char* name, Domain** out) const { return at<26, Status*>(name, out); }
  Status* add(Domain* to, const struct Operator* op) const { return at<27, Status*>(to, op); }
  Status* add(SessionOptions* to, Domain* domain) const { return at<28, Status*>(to, domain); }
  Status* data(const Value* value, void** out) const { return at<51, Status*>(value, out); }
  Status* type(const Shape* shape, Type* out) const { return at<60, Status*>(shape, out); }
  Status* rank(const Shape* shape, size_t* out) const { return at<61, Status*>(shape, out); }
  Status* sizes(const Shape* shape, int64_t* out, size_t rank) const {
    return at<62, Status*>(shape, out, rank);
  }
  Status* shape(const Value* value, Shape** out) const { return at<65, Status*>(value, out); }
  Status* attribute(const KernelInfo* info, const char* name, float* out) const {
    return at<85, Status*>(info, name, out);
  }
  Status* attribute(const KernelInfo* info, const char* name, int64_t* out) const {
    return at<86, Status*>(info, name, out);
  }
  Status* input(const Context* context, size_t index, const Value** out) const {
    return at<90, Status*>(context, index, out);
  }
  Status* output(Context* context, size_t index, const int64_t* sizes, size_t rank,
                 Value** out) const {
    return at<91, Status*>(context, index, sizes, rank, out);
  }
  void release(Status* status) const { at<93, void>(status); }
  void release(Shape* shape) const { at<99, void>(shape); }
  Status* node_name(const KernelInfo* info, char* out, size_t* size) const {
    return at<244, Status*>(info, out, size);
  }
  Status* constant(const KernelInfo* info, size_t index, int* is_constant,
                   const Value** out) const {
    return at<249, Status*>(info, index, is_constant, out);
  }
  // Calls task(with, k) for every k below n, on the threads of the session.
  Status* parallel(const Context* context, void (*task)(void*, size_t), size_t n,
                   void* with) const {
    return at<274, Status*>(context, task, n, size_t{0}, with);
  }

 private:
  template <int index, class Result, class... Arguments>
  Result at(Arguments... arguments) const {
    using Function = Result (*)(Arguments...);
    return reinterpret_cast<Function>(reinterpret_cast<void* const*>(this)[index])(arguments...);
  }
};

// OrtApiBase
struct Base {
  const Api* (*api)(uint32_t version);  // null, if there is none of that version
  const char* (*version)();
};

// OrtCustomOp; what later versions append is not looked at below theirs.
struct Operator {
  uint32_t version;
  void* (*create)(const Operator*, const Api*, const KernelInfo*);  // not called, as there is one
  const char* (*name)(const Operator*);                             // that may fail
  const char* (*provider)(const Operator*);                         // null stands for CPUs
  Type (*input_type)(const Operator*, size_t);
  size_t (*inputs)(const Operator*);
  Type (*output_type)(const Operator*, size_t);
  size_t (*outputs)(const Operator*);
  void (*compute)(void*, Context*);  // as `create`
  void (*destroy)(void* kernel);
  int (*input_kind)(const Operator*, size_t);  // 0: it must be there
  int (*output_kind)(const Operator*, size_t);
  int (*input_memory)(const Operator*, size_t);  // 0: where the provider has its own
  int (*least_inputs)(const Operator*);
  int (*are_inputs_alike)(const Operator*);
  int (*least_outputs)(const Operator*);
  int (*are_outputs_alike)(const Operator*);
  Status* (*try_create)(const Operator*, const Api*, const KernelInfo*, void** kernel);
  Status* (*try_compute)(void* kernel, Context*);
  Status* (*infer_shape)(const Operator*, void*);
  int (*first_version)(const Operator*);
  int (*last_version)(const Operator*);
  void* later[4];
};

}  // namespace ort
}  // namespace einsort
