#!/usr/bin/env bash
# Accuracy of column sparsity on Imagenette: one dense ResNet18, then the same short fine-tuning for every ratio,
# criterion and granularity, and for no sparsity at all. Finished runs are kept and interrupted ones continue.
#   DATA=imagenette128.zip SIZE=96 tools/accuracy.sh [more options for every run, e.g. --amp -j 1]
set -euo pipefail
data="${DATA:-imagenette}" size="${SIZE:-96}" out="${OUT:-runs/accuracy}" epochs="${EPOCHS:-22}" tuning="${TUNING:-2}"
common=(--data "$data" --download --size "$size" --model resnet18 -b 64 --opt sgd_nesterov --wd 5e-4 --label-smoothing 0.1 --resume "$@")

run() { # name, options
  local name="$1"
  shift
  [ -f "$out/$name/summary.json" ] || semisparse train classify "${common[@]}" --output-dir "$out/$name" "$@"
}
tune() {
  local name="$1"
  shift
  run "$name" --checkpoint "$out/dense/checkpoint.pt" --epochs "$tuning" --lr 0.01 "$@"
}

run dense --epochs "$epochs" --lr 0.05 --lr-warmup-epochs 2
tune control
for percent in 10 20 30; do
  tune "columns$percent-saliency" --recipe "columns$percent"
  tune "columns$percent-coherent_random" --recipe "columns$percent" --set columns.criterion=coherent_random
done
for granularity in run16 tile4x4; do
  tune "columns20-saliency-$granularity" --recipe columns20 --set "columns.granularity=$granularity"
done
tune columns30-saliency-distill --recipe columns30 --distill "$out/dense/checkpoint.pt"
printf '%-32s %8s\n' run top-1
for summary in "$out"/*/summary.json; do
  name="$(basename "$(dirname "$summary")")"
  printf '%-32s %7.2f%%\n' "$name" "$(sed -n 's/^ *"top1": \([0-9.]*\).*/\1/p' "$summary")"
done
