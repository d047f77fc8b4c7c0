#!/usr/bin/env bash
# mAP of a sparse YOLO on BCCD, 364 microscope pictures: a dense network trained from scratch on small
# pictures, then on larger ones; fine-tunings distilled from it, one built on the other, one without sparsity.
#   DATA=bccd_yolo.zip [SIZE=416 START=320 SEED=0 EPOCHS=60 MODEL=yolov8n.yaml] tools/bccd.sh [options]
# DATA is a data.yaml, or a directory or zip that holds one. Finished runs are kept, interrupted ones go on.
# Options go to every run: `--amp` halves the time on CPUs that have bfloat16, `--epochs 1` makes a trial.
set -euo pipefail
data="${DATA:?name the data: DATA=bccd_yolo.zip $0}" size="${SIZE:-416}" start="${START:-320}"
seed="${SEED:-0}" out="${OUT:-runs/bccd-${SEED:-0}}" epochs="${EPOCHS:-60}" model="${MODEL:-yolov8n.yaml}"
common=(--data "$data" --batch-size 8 --opt AdamW --seed "$seed" --resume)
yolo=(nbs=8 cos_lr=True lrf=0.02 cache=ram val=False)
tuning=(warmup_epochs=0.5 mosaic=0 close_mosaic=0)
extra=("$@")

run() { # name, options
  local name="$1"
  shift
  [ -f "$out/$name/summary.json" ] ||
    semisparse train detect "${common[@]}" --output-dir "$out/$name" "$@" "${extra[@]}"
}
names=()
on() { # name of the run to train on from, name, epochs, learning rate, options
  local from="$1" name="$2" epochs="$3" lr="$4"
  shift 4
  names+=("$name")
  run "$name" --model "$out/$from/weights/best.pt" --size "$size" --epochs "$epochs" --lr "$lr" \
    --distill "$out/dense" "$@" --yolo "${yolo[@]}" "${tuning[@]}"
}
evaluate() { # split
  semisparse eval detect --dense "$out/dense" $(printf -- "--run $out/%s " "${names[@]}") --split "$1" \
    --output-dir "$out/$1"
}

dense=(--recipe columns20 --set columns.ratio=0) # removes nothing; --amp and distillation as for the others
columns=(columns.scope=global columns.begin=0 columns.end=0.3)
keep=(method=magnitude begin=0 end=0) # patterns and kernels that are there: a projection finds them again

run scratch --model "$model" --size "$start" --epochs "$epochs" --lr 0.001 "${dense[@]}" \
  --yolo "${yolo[@]}" warmup_epochs=2
run dense --model "$out/scratch/weights/best.pt" --size "$size" --epochs 16 --lr 0.001 "${dense[@]}" \
  --yolo "${yolo[@]}" "${tuning[@]}"
on dense control 10 0.001 "${dense[@]}"
on dense columns20 6 0.0005 --recipe columns20 --set "${columns[@]}"
on dense columns30 6 0.0005 --recipe columns30 --set "${columns[@]}"
on dense pattern 14 0.001 --recipe pattern --set method=magnitude end=0.3
# Patterns are learnt with pictures that move on the canvas; then columns go, from pictures in their place
# (the trainer sees to that).
on pattern pattern+columns 10 0.0005 --recipe pattern+columns --set "${keep[@]}" "${columns[@]}"
on pattern 8x 20 0.001 --recipe pattern+connectivity-8x --set end=0.5
on 8x 8x+columns 10 0.0005 --recipe pattern+connectivity-8x \
  --set "${keep[@]}" columns.ratio=0.3 "${columns[@]}"
evaluate val
evaluate test
