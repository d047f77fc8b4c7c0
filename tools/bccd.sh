#!/usr/bin/env bash
# mAP of a sparse YOLO on BCCD, 364 microscope pictures: a dense network trained from scratch, then the same short
# fine-tuning for every recipe, and for no sparsity at all. Finished runs are kept, interrupted ones continue.
#   DATA=bccd_yolo.zip [MODEL=yolov8n.yaml SIZE=320 EPOCHS=80 TUNING=5] tools/bccd.sh [options for every run]
# DATA is a data.yaml, or a directory or zip that holds one. About an hour on two cores.
set -euo pipefail
data="${DATA:?name the data: DATA=bccd_yolo.zip $0}" size="${SIZE:-320}" out="${OUT:-runs/bccd}"
epochs="${EPOCHS:-80}" tuning="${TUNING:-5}" model="${MODEL:-yolov8n.yaml}"
recipes="${RECIPES:-columns20 columns30 pattern pattern+columns}"
common=(--data "$data" --size "$size" --batch-size 8 --opt AdamW --resume "$@")
yolo=(nbs=8 cos_lr=True lrf=0.02 cache=ram val=False)

run() { # name, options
  local name="$1"
  shift
  [ -f "$out/$name/summary.json" ] || semisparse train detect "${common[@]}" --output-dir "$out/$name" "$@"
}
tune() {
  local name="$1"
  shift
  run "$name" --model "$out/dense/weights/best.pt" --epochs "$tuning" --lr 0.0005 "$@" \
    --yolo "${yolo[@]}" mosaic=0 close_mosaic=0 warmup_epochs=0.5
}

run dense --model "$model" --epochs "$epochs" --lr 0.001 --yolo "${yolo[@]}" warmup_epochs=2
tune control
for recipe in $recipes; do
  tune "$recipe" --recipe "$recipe"
done
semisparse eval detect --dense "$out/dense" --run "$out/control" $(printf -- "--run $out/%s " $recipes) \
  --output-dir "$out"
