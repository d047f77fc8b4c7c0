#!/usr/bin/env bash
# Accuracy of sparsity on Imagenette: one dense ResNet18, then short fine-tunings of it.
#   DATA=imagenette128.zip SIZE=96 tools/accuracy.sh [columns] [weights] [more options for every run, e.g. --amp -j 1]
# columns: every ratio and criterion, granularities, and no sparsity at all. weights: patterns, connectivity 8x and other
# schemes with as many multiplications, with and without columns. Finished runs are kept and interrupted ones continue.
# TUNING and LR change epochs and learning rate of all fine-tunings, e.g. TUNING=10 where there is a GPU.
set -euo pipefail
data="${DATA:-imagenette}" size="${SIZE:-96}" out="${OUT:-runs/accuracy}" epochs="${EPOCHS:-22}"
parts=()
while [ $# -gt 0 ] && [[ "$1" != -* ]]; do
  parts+=("$1")
  shift
done
[ ${#parts[@]} -gt 0 ] || parts=(columns weights)
for part in "${parts[@]}"; do
  [[ "$part" =~ ^(columns|weights)$ ]] || { echo "error: $part is not a part; choose columns, weights or both" >&2 && exit 2; }
done
common=(--data "$data" --download --size "$size" --model resnet18 -b 64 --opt sgd_nesterov --wd 5e-4 --label-smoothing 0.1 --resume "$@")
distill=(--distill "$out/dense/checkpoint.pt")

run() { # name, options
  local name="$1"
  shift
  [ -f "$out/$name/summary.json" ] || semisparse train classify "${common[@]}" --output-dir "$out/$name" "$@"
}
tune() { # epochs, learning rate, name, options
  local epochs="${TUNING:-$1}" lr="${LR:-$2}" name="$3"
  shift 3
  run "$name" --checkpoint "$out/dense/checkpoint.pt" --epochs "$epochs" --lr "$lr" "$@"
}

columns() {
  tune 2 0.01 control
  for percent in 10 20 30; do
    tune 2 0.01 "columns$percent-saliency" --recipe "columns$percent"
    tune 2 0.01 "columns$percent-coherent_random" --recipe "columns$percent" --set columns.criterion=coherent_random
  done
  for granularity in run16 tile4x4; do
    tune 2 0.01 "columns20-saliency-$granularity" --recipe columns20 --set "columns.granularity=$granularity"
  done
  tune 2 0.01 columns30-saliency-distill --recipe columns30 "${distill[@]}"
}

weights() {
  tune 2 0.01 control-distill "${distill[@]}"
  for columns in 0 0.3; do
    for group in 4 1 8; do
      tune 2 0.01 "pattern-group$group-columns$columns" --recipe pattern "${distill[@]}" \
        --set rho=4 end=0.4 "group=$group" "columns.ratio=$columns"
      tune 5 0.03 "pattern8x-group$group-columns$columns" --recipe pattern+connectivity-8x "${distill[@]}" \
        --set rho=8 end=0.15 "group=$group" "columns.ratio=$columns"
    done
    for scheme in block_punched unstructured; do
      tune 5 0.03 "$scheme-8x-columns$columns" --recipe punched "${distill[@]}" \
        --set "scheme=$scheme" ratio=0.875 method=admm rho=8 end=0.15 "columns.ratio=$columns"
    done
  done
}

run dense --epochs "$epochs" --lr 0.05 --lr-warmup-epochs 2
for part in "${parts[@]}"; do "$part"; done
printf '%-32s %8s\n' run top-1
for summary in "$out"/*/summary.json; do
  name="$(basename "$(dirname "$summary")")"
  printf '%-32s %7.2f%%\n' "$name" "$(sed -n 's/^ *"top1": \([0-9.]*\).*/\1/p' "$summary")"
done
