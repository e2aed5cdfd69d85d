#!/bin/sh
# Compiles the native kernels with a sanitizer in a folder of its own and runs their tests with it.
#   sh tests/sanitize.sh PYTHON [address,undefined | thread]
# Python is not compiled with a sanitizer, so the sanitizer's library is preloaded (with libstdc++, or exceptions are not
# caught), and leaks of Python are not reported. The thread sanitizer does not understand PyTorch's OpenMP team, so with
# it only the tests of the kernels' and the engine's own threads run.
set -eu
python=$(command -v "$1")
kind=${2:-address,undefined}
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/sanitize-$(echo "$kind" | tr , -)
mkdir -p "$build"
PATH=$(dirname "$python"):$PATH
cmake -S "$root" -B "$build" -G Ninja -DPython_EXECUTABLE="$python" -DLMWORKS_SANITIZE="$kind" > "$build/cmake.log"
cmake --build "$build"
rm -rf "$build/lmworks"
cp -R "$root/src/lmworks" "$build/lmworks"
rm -f "$build"/lmworks/kernels/_native*.so
cp "$build"/_native*.so "$build/lmworks/kernels/"
cd "$root"
case $kind in
    thread) library=libtsan.so what="tests/kernels/test_threads.py tests/kernels/test_engine_threads.py" ;;
    *) library=libasan.so
       what="tests/kernels $(ls tests/generate/test_native*.py) tests/generate/test_engine_file.py tests/generate/test_kv_cache.py
             tests/generate/test_speculative.py tests/generate/test_ternary_weights.py" ;;
esac
LD_PRELOAD="$(${CXX:-c++} -print-file-name=$library) $(${CXX:-c++} -print-file-name=libstdc++.so)" PYTHONPATH=$build \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 TSAN_OPTIONS=halt_on_error=1 \
    "$python" -m pytest -q -p no:cacheprovider --timeout 1800 $what
