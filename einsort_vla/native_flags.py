"""Of what and how the native library is compiled; also read by what builds wheels."""

FOLDER = "kernels/native"  # of this package, where its files are
KERNELS = "kernels.cpp"  # compiled once for each level
SOURCES = (KERNELS, "native.cpp", "choose.cpp", "onnxruntime.cpp")
HEADERS = ("einsort.h", "isa.h", "kernels.h", "onnxruntime_api.h", "polynomials.h")

COMMON = ("-O3", "-std=c++17", "-fPIC", "-Wall")
# Sums are the same on every processor only if none contracts them. The library needs a C library
# alone. Of AVX-512's own header GCC 12 warns that what is left undefined is not initialized.
OWN = (
    "-ffp-contract=off", "-fno-math-errno", "-fno-exceptions", "-fno-rtti",
    "-fno-threadsafe-statics", "-Wno-uninitialized", "-Wno-maybe-uninitialized",
)  # fmt: skip
LEVELS = {
    "x86_64": {
        "plain": "-march=x86-64", "avx2": "-march=x86-64-v3", "avx512": "-march=x86-64-v4",
        "vnni": "-march=x86-64-v4 -mavx512vnni",
    },
    "aarch64": {"here": "-march=armv8-a"},
}  # fmt: skip
"""By machine, what a library that is shipped holds kernels for, and the flags of each."""
SHIPPED = "libeinsort.so"
