#!/usr/bin/env bash
# The main job on a fresh machine: train a dense ResNet18, fine-tune it with most of the work of its 3x3 layers
# removed in two ways, convert, and compare in accuracy and latency. Takes under five minutes on two CPU cores.
# Arguments go to all training runs, e.g.  tools/demo.sh --data imagenette --download --size 128 --epochs 20
set -euo pipefail
cd "$(dirname "$0")/.."
dense=("$@") sparse=("$@")
if [ $# = 0 ]; then
  dense=(--data digits --size 80 -b 32 --epochs 4 --lr 0.03 --lr-warmup-epochs 1)
  sparse=(--data digits --size 80 -b 32 --epochs 4 --lr 0.03)
fi
tools/setup.sh train,eval,peers
export PATH="$PWD/${VENV:-.venv}/bin:$PATH"
unset PYTHONDONTWRITEBYTECODE # nine processes import torch: what the first one compiles serves the others
out="${OUT:-runs/demo}"
fine_tune() { # name, options
  local name="$1"
  shift
  semisparse train classify --output-dir "$out/$name" --checkpoint "$out/dense/checkpoint.pt" "${sparse[@]}" "$@"
}

echo "== dense baseline"
semisparse train classify --output-dir "$out/dense" "${dense[@]}"
echo "== sparse fine-tuning: 72% of the kernels removed, and 30% of the columns where that pays on this machine"
fine_tune kernels+columns --recipe kernels+columns
echo "== sparse fine-tuning: patterns and 72% of the kernels (8x fewer multiplications), and 30% of the columns"
fine_tune 8x+columns --recipe pattern+connectivity-8x --set columns.ratio=0.3 columns.granularity=auto
echo "== dense against sparse"
semisparse eval classify --rounds 20 --dense "$out/dense" --run "$out/kernels+columns" --run "$out/8x+columns" --output-dir "$out"
