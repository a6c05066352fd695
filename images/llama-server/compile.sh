#!/bin/sh
# Builds llama-server and ggml-rpc-server for one backend: compile.sh SOURCE OUTPUT
set -eu

source="$1" output="$2"

# Which archs there are, as CMake's list: of `compute_75`, `sm_75`, `7.5` or `75`, and several of them.
archs() {
  echo "$1" | sed -E 's/(compute_|sm_)//g; s/\.//g; s/[;, ]+/;/g'
}

case "$BACKEND" in
  cpu) flags="" ;;
  cuda)
    toolkit="$(echo /opt/cuda/lib/python3*/site-packages/nvidia/cu13)"
    export CUDACXX="$toolkit/bin/nvcc" CUDAARCHS=""
    # The packages have the libraries under the names for running, not for linking.
    for library in cudart cublas cublasLt; do
      ln -s "lib$library.so.13" "$toolkit/lib/lib$library.so"
    done
    ln -s lib "$toolkit/lib64"
    # The driver's library comes from the node. What is linked here is a stub of the same name.
    mkdir "$toolkit/lib/stubs"
    echo | gcc -shared -Wl,-soname,libcuda.so.1 -x c - -o "$toolkit/lib/stubs/libcuda.so"
    for arch in $(archs "$CUDA_DOCKER_ARCH" | tr ';' ' '); do
      if ! "$CUDACXX" --list-gpu-arch | grep --quiet --line-regexp "compute_${arch%[af]}"; then
        echo "CUDA_ARCH: nvcc knows no compute_$arch, only: $("$CUDACXX" --list-gpu-arch | xargs)" >&2
        exit 2
      fi
    done
    flags="-DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF -DCUDAToolkit_ROOT=$toolkit"
    flags="$flags -DCMAKE_CUDA_ARCHITECTURES=$(archs "$CUDA_DOCKER_ARCH")"
    # The stub has no symbols, so that the linker leaves it out by default: then nothing would load the
    # driver's library, and no GPU would be found.
    flags="$flags -DCMAKE_MODULE_LINKER_FLAGS=-Wl,--no-as-needed"
    ;;
  vulkan) flags="-DGGML_VULKAN=ON" ;;
  rocm)
    HIPCXX="$(hipconfig -l)/clang" HIP_PATH="$(hipconfig -R)"
    export HIPCXX HIP_PATH
    flags="-DGGML_HIP=ON -DGPU_TARGETS=$(echo "$ROCM_ARCH" | tr ', ' ';;')"
    ;;
esac

commit="${LLAMA_CPP_COMMIT:-sdist}"
# RDMA: found by chance in a base image with libibverbs, and vulnerable until b11865 (CVE-2026-118375).
# shellcheck disable=SC2016,SC2086
cmake -S "$source" -B /build -G Ninja $flags \
  -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON -DCMAKE_INSTALL_RPATH='$ORIGIN' \
  -DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS="$CPU_VARIANTS" -DGGML_RPC=ON -DGGML_RPC_RDMA=OFF \
  -DLLAMA_BUILD_NUMBER="${LLAMA_CPP_BUILD#b}" -DLLAMA_BUILD_COMMIT="$(echo "$commit" | cut -c 1-9)" \
  -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF \
  -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
cmake --build /build --parallel "${JOBS:-$(nproc)}" --target llama-server ggml-rpc-server

mkdir "$output"
cp --no-dereference /build/bin/*.so* /build/bin/llama-server /build/bin/ggml-rpc-server "$output"
find "$output" -type f -exec strip --strip-unneeded {} +
if [ "$BACKEND" = cuda ]; then
  if ! readelf --dynamic "$output/libggml-cuda.so" | grep --quiet 'NEEDED.*libcuda\.so\.1'; then
    echo "libggml-cuda.so does not need the driver's library: it would not find a GPU" >&2
    exit 1
  fi
  # nvrtc is loaded by cuBLAS.
  for library in libcudart libcublas libcublasLt libnvrtc libnvrtc-builtins; do
    cp "$toolkit/lib/$library".so.13* "$output"
  done
fi
cp "$source/LICENSE" "$output/LICENSE"
