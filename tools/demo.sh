#!/usr/bin/env bash
# The main job on a fresh machine: train a dense ResNet18, fine-tune it with 30% of the columns removed, convert
# it, and compare both in accuracy and latency. Takes under five minutes on two CPU cores.
# Arguments go to both training runs, e.g.  tools/demo.sh --data imagenette --download --epochs 20
set -euo pipefail
cd "$(dirname "$0")/.."
dense=("$@") sparse=("$@")
if [ $# = 0 ]; then
  dense=(--data digits --size 96 -b 32 --epochs 4 --lr 0.03 --lr-warmup-epochs 1)
  sparse=(--data digits --size 96 -b 32 --epochs 3)
fi
tools/setup.sh train,eval,peers
export PATH="$PWD/${VENV:-.venv}/bin:$PATH"
out="${OUT:-runs/demo}"

echo "== dense baseline"
semisparse train classify --output-dir "$out/dense" "${dense[@]}"
echo "== sparse fine-tuning, 30% of the columns removed"
semisparse train classify --output-dir "$out/columns30" --recipe columns30 --checkpoint "$out/dense/checkpoint.pt" "${sparse[@]}"
echo "== dense against sparse"
semisparse eval classify --dense "$out/dense" --run "$out/columns30" --output-dir "$out"
