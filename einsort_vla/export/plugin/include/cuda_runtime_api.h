// In place of CUDA's header of this name: TensorRT's headers include it for these two types only,
// and no function of the CUDA runtime is called. So the plugin builds without a CUDA toolkit.

#pragma once

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
