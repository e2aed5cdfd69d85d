#!/bin/sh
# Installs what inference.py and serving.py compare with, where it can be had; what cannot is said and left out there.
#   sh benchmarks/install_peers.sh PYTHON            for inference.py
#   sh benchmarks/install_peers.sh PYTHON servers    for serving.py: what the servers of llama.cpp and transformers need, too
# llama.cpp is compiled here (a quarter of an hour on two cores), without its library for pictures. As built by default it
# crashes at the first evaluation on processors with AMX (ggml-org/llama.cpp issue 20824), so there its instruction sets are
# named, AMX left out. Its wheel is not taken from pip's cache, where one compiled on another processor may lie.
set -u
python=$1
install="$python -m pip install --quiet --disable-pip-version-check --constraint $(dirname "$0")/../constraints.txt"
export CMAKE_ARGS="-DLLAVA_BUILD=OFF"
if grep -qw amx_tile /proc/cpuinfo 2>/dev/null; then
    CMAKE_ARGS="$CMAKE_ARGS -DGGML_NATIVE=OFF"
    for set in AVX512 AVX512_VNNI AVX512_VBMI AVX512_BF16 AVX2 FMA F16C; do CMAKE_ARGS="$CMAKE_ARGS -DGGML_$set=ON"; done
fi
if ! "$python" -c "import llama_cpp" 2>/dev/null; then
    echo "compiling llama.cpp for the comparison (a quarter of an hour)"
    $install --no-cache-dir llama-cpp-python==0.3.36 || echo "llama-cpp-python could not be installed: its arms are left out"
fi
"$python" -c "import ctranslate2" 2>/dev/null || $install ctranslate2==4.8.5 ||
    echo "ctranslate2 could not be installed: its arm is left out"
if [ "${2:-}" = servers ]; then
    $install fastapi openai pydantic-settings sse-starlette "starlette-context<0.4" uvicorn ||
        echo "what the servers need could not be installed: their arms are left out"
fi
