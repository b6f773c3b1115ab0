#!/usr/bin/env bash
# Kernels with one mistake planted in each, and the quantizers' tests against them: each must fail.
#
#   quantize_planted.sh build FOLDER   FOLDER as "run_on_device.sh pack" leaves it, with the built
#                                      library gpu_quantize_checks; needs nvcc, no GPU
#   quantize_planted.sh test FOLDER [NAME...]   all or those named; needs a GPU
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n '2,6p' "$0" >&2; exit 64; }
mode=$1
folder=$(realpath "$2")
root=$(realpath "$(dirname "$0")/../..")
shift 2

# plant NAME FILE FROM TO [NVCC-FLAG]: builds the kernels with FROM in FILE of kernels/cuda replaced.
plant() {
  local name=$1 file=$2 from=$3 to=$4 flag=${5--fmad=false}
  local tree
  tree=$(mktemp -d)
  mkdir -p "$tree/kernels/cuda"
  cp "$root"/kernels/cuda/{kv_write,quantize}* "$tree/kernels/cuda/"
  FROM=$from TO=$to perl -0pi -e 's/\Q$ENV{FROM}\E/$ENV{TO}/g' "$tree/kernels/cuda/$file"
  if [[ -n $from ]] && cmp -s "$root/kernels/cuda/$file" "$tree/kernels/cuda/$file"; then
    echo "not planted: $name: $file has no '$from'" >&2
    exit 1
  fi
  nvcc -std=c++20 -O3 -arch=sm_90 "$flag" -I"$tree" -I"$root" "$tree"/kernels/cuda/kv_write.cu \
    "$tree"/kernels/cuda/kv_write_quantize.cu -o "$folder/planted/$name" -L"$folder/lib" \
    -lgpu_quantize_checks -Xlinker -rpath-link="$folder/lib"
  rm -r "$tree"
}

build() {
  mkdir -p "$folder/planted"
  plant none quantize_math.cuh "" ""
  plant floor quantize_math.cuh "kScaleFloor = 1e-8f" "kScaleFloor = 1.00001e-8f"
  plant unchanged quantize_math.cuh "kTensorUnchangedBelow = 1e-10f" \
    "kTensorUnchangedBelow = 1e-8f"
  plant half_up quantize_math.cuh "return (value + kRoundMagic) - kRoundMagic" \
    "return floorf(value + 0.5f)"
  plant fp8_rounding quantize_math.cuh "R<kRound>(Divide(x, s))" "Divide(x, s)"
  plant infinity quantize_math.cuh "!IsFiniteBits(FloatBits(x)) || " ""
  plant sink kv_write_tensor.cuh "!rule.fp && position >= rule.sink" \
    "!rule.fp && position > rule.sink"
  plant window kv_write_tensor.cuh "max(0, eligible - rule.window)" \
    "max(0, eligible - rule.window + 1)"
  plant rotation kv_write_rows.cuh "RoundTo<T>(a * c) + RoundTo<T>(-b * s)" "a * c + -b * s"
  plant jitter kv_write_rows.cuh "0xff51afd7ed558ccdu" "0xff51afd7ed558ccbu"
  plant frozen kv_write_tensor.cuh "FrozenScale() + args.step.max_groups" "FrozenScale()"
  plant fused quantize_math.cuh "" "" -fmad=true
}

# The kernels without a mistake pass, all others fail.
check() {
  local program=$1 want=failed outcome=failed log
  log=$(mktemp)
  [[ $(basename "$program") == none ]] && want=passed
  PLUMB_GPU_SMALL=1 LD_LIBRARY_PATH=$folder/lib "$program" >"$log" 2>&1 && outcome=passed
  grep -q SKIPPED "$log" && outcome=skipped
  echo "$(basename "$program"): $outcome, as it should$([[ $outcome == "$want" ]] || echo ' not'):" \
    "$(grep -c '^\[  FAILED  \].* ms)' "$log") of its 5 tests failed"
  rm "$log"
  [[ $outcome == "$want" ]]
}

case $mode in
  build) build ;;
  test)
    failed=0
    for program in "$folder"/planted/*; do
      [[ $# -gt 0 && " $* " != *" $(basename "$program") "* ]] || check "$program" || failed=1
    done
    exit $failed
    ;;
  *) exit 64 ;;
esac
