#!/usr/bin/env bash
# Accuracy of sparsity on Imagenette: one dense ResNet18, then short fine-tunings of it.
#   DATA=imagenette128.zip SIZE=96 tools/accuracy.sh [columns] [weights] [methods] [options for every run, e.g. --amp -j 1]
# columns: every ratio and criterion, granularities, and no sparsity at all. weights: patterns, connectivity 8x and
# other schemes with as many multiplications, then each with columns. methods: ADMM, gradual, distillation.
# Finished runs are kept and interrupted ones continue. TUNING and LR change epochs and learning rate of all
# fine-tunings, e.g. TUNING=10 where there is a GPU.
set -euo pipefail
data="${DATA:-imagenette}" size="${SIZE:-96}" out="${OUT:-runs/accuracy}" epochs="${EPOCHS:-22}"
parts=()
while [ $# -gt 0 ] && [[ "$1" != -* ]]; do
  parts+=("$1")
  shift
done
[ ${#parts[@]} -gt 0 ] || parts=(columns weights methods)
for part in "${parts[@]}"; do
  [[ "$part" =~ ^(columns|weights|methods)$ ]] || { echo "error: $part is not a part; choose of columns, weights, methods" >&2 && exit 2; }
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
  for criterion in saliency held_out coherent_random; do
    tune 1 0.01 "columns30-tile4x4-$criterion" --recipe columns30 --set columns.granularity=tile4x4 "columns.criterion=$criterion"
  done
  tune 2 0.01 columns30-saliency-distill --recipe columns30 "${distill[@]}" --distill-weight 1 --distill-temperature 1
}

# Adds 30% of the columns to a run, under its name, -columns30 and $suffix. Its weights' masks stay: a projection
# of the weights finds them again.
with_columns() { # name of the run, recipe, changes of it
  local name="$1" recipe="$2"
  shift 2
  tune 2 0.01 "$name-columns30${suffix:-}" --checkpoint "$out/$name/checkpoint.pt" --recipe "$recipe" "${distill[@]}" \
    --set method=magnitude begin=0 end=0 columns.ratio=0.3 "$@"
}

weights() {
  local group scheme name
  tune 5 0.02 control-distill "${distill[@]}"
  for group in 4 1 8; do
    name="pattern-group$group"
    tune 5 0.02 "$name" --recipe pattern "${distill[@]}" --set method=magnitude end=0.4 "group=$group"
    with_columns "$name" pattern "group=$group"
    name="pattern8x-group$group"
    tune 8 0.02 "$name" --recipe pattern+connectivity-8x "${distill[@]}" --set end=0.4 "group=$group"
    with_columns "$name" pattern+connectivity-8x "group=$group"
  done
  # In the runs that im2col skips fastest, and im2col is what runs at 8x.
  suffix=-run16 with_columns pattern8x-group4 pattern+connectivity-8x group=4 columns.granularity=run16
  for scheme in unstructured block_punched; do
    name="$scheme-8x"
    tune 3 0.02 "$name" --recipe punched "${distill[@]}" --set method=magnitude end=0.5 "scheme=$scheme" ratio=0.875
    with_columns "$name" punched "scheme=$scheme" ratio=0.875
  done
}

# 8x in three epochs: what ADMM, gradual pruning and a stronger pull towards the teacher are worth.
methods() {
  local group gently=("${distill[@]}" --distill-weight 1 --distill-temperature 1)
  for group in 4 1 8; do
    tune 3 0.02 "admm-group$group" --recipe pattern+connectivity-8x "${gently[@]}" \
      --set method=admm rho=2 "group=$group"
  done
  tune 3 0.02 gradual --recipe pattern+connectivity-8x "${gently[@]}"
  tune 3 0.02 gradual-distill --recipe pattern+connectivity-8x "${distill[@]}"
}

run dense --epochs "$epochs" --lr 0.05 --lr-warmup-epochs 2
for part in "${parts[@]}"; do "$part"; done
printf '%-32s %8s\n' run top-1
for summary in "$out"/*/summary.json; do
  name="$(basename "$(dirname "$summary")")"
  printf '%-32s %7.2f%%\n' "$name" "$(sed -n 's/^ *"top1": \([0-9.]*\).*/\1/p' "$summary")"
done
