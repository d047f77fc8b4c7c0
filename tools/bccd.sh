#!/usr/bin/env bash
# mAP of a sparse YOLO on BCCD, 364 microscope pictures: a dense network trained from scratch, then fine-tunings
# of it, one built on the other, and one without sparsity.
#   DATA=bccd_yolo.zip [MODEL=yolov8n.yaml SIZE=320 EPOCHS=80] tools/bccd.sh [options for every run]
# DATA is a data.yaml, or a directory or zip that holds one. Finished runs are kept, interrupted ones continue.
set -euo pipefail
data="${DATA:?name the data: DATA=bccd_yolo.zip $0}" size="${SIZE:-320}" out="${OUT:-runs/bccd}"
epochs="${EPOCHS:-80}" model="${MODEL:-yolov8n.yaml}"
common=(--data "$data" --size "$size" --batch-size 8 --opt AdamW --resume "$@")
yolo=(nbs=8 cos_lr=True lrf=0.02 cache=ram val=False)

run() { # name, options
  local name="$1"
  shift
  [ -f "$out/$name/summary.json" ] || semisparse train detect "${common[@]}" --output-dir "$out/$name" "$@"
}
names=()
on() { # name of the run to train on from, name, epochs, learning rate, options
  local from="$1" name="$2" epochs="$3" lr="$4"
  shift 4
  names+=("$name")
  run "$name" --model "$out/$from/weights/best.pt" --epochs "$epochs" --lr "$lr" "$@" \
    --yolo "${yolo[@]}" warmup_epochs=0.5 mosaic=0 close_mosaic=0
}

run dense --model "$model" --epochs "$epochs" --lr 0.001 --yolo "${yolo[@]}" warmup_epochs=2
on dense control 5 0.0005
on dense columns20 5 0.0005 --recipe columns20
on dense columns30 5 0.0005 --recipe columns30
on dense pattern 18 0.001 --recipe pattern --set end=0.3
# Patterns are learnt with pictures that move on the canvas; then columns go, from pictures in their place (the
# trainer sees to that). The patterns stay: they are what a projection of the trained weights finds again.
on pattern pattern+columns 8 0.0005 --recipe pattern+columns \
  --set method=magnitude begin=0 end=0 columns.scope=global columns.begin=0 columns.end=0.3
on pattern 8x 8 0.001 --recipe pattern+connectivity-8x --set method=admm end=0.4
on 8x 8x-longer 5 0.001 --recipe pattern+connectivity-8x --set method=magnitude begin=0 end=0
semisparse eval detect --dense "$out/dense" $(printf -- "--run $out/%s " "${names[@]}") --output-dir "$out"
