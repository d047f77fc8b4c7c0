#!/usr/bin/env bash
# mAP of a sparse YOLO on BCCD, 364 microscope pictures: a dense network trained from scratch, then a short
# fine-tuning for every recipe, and for no sparsity at all. Finished runs are kept, interrupted ones continue.
#   DATA=bccd_yolo.zip [MODEL=yolov8n.yaml SIZE=320 EPOCHS=80 TUNING=5 LONGER=14] tools/bccd.sh [options for every run]
# DATA is a data.yaml, or a directory or zip that holds one. Recipes with weights are trained LONGER, and once more
# with the weights that are left. About two hours on two cores.
set -euo pipefail
data="${DATA:?name the data: DATA=bccd_yolo.zip $0}" size="${SIZE:-320}" out="${OUT:-runs/bccd}"
epochs="${EPOCHS:-80}" tuning="${TUNING:-5}" longer="${LONGER:-14}" model="${MODEL:-yolov8n.yaml}"
recipes="${RECIPES:-columns20 columns30 pattern pattern+columns}"
common=(--data "$data" --size "$size" --batch-size 8 --opt AdamW --resume "$@")
yolo=(nbs=8 cos_lr=True lrf=0.02 cache=ram val=False)
# In every row, pictures lie where the letterbox puts them. Where columns are removed, the trainer does so by itself.
still=(mosaic=0 close_mosaic=0 scale=0 translate=0 warmup_epochs=0.5)

run() { # name, options
  local name="$1"
  shift
  [ -f "$out/$name/summary.json" ] || semisparse train detect "${common[@]}" --output-dir "$out/$name" "$@"
}
tune() { # name, epochs, learning rate, options
  local name="$1" epochs="$2" lr="$3"
  shift 3
  run "$name" --model "$out/dense/weights/best.pt" --epochs "$epochs" --lr "$lr" "$@" --yolo "${yolo[@]}" "${still[@]}"
}

run dense --model "$model" --epochs "$epochs" --lr 0.001 --yolo "${yolo[@]}" warmup_epochs=2
tune control "$tuning" 0.0005
names=(control)
for recipe in $recipes; do
  names+=("$recipe")
  case "$recipe" in
    columns*) tune "$recipe" "$tuning" 0.0005 --recipe "$recipe" ;;
    *)
      tune "$recipe" "$longer" 0.001 --recipe "$recipe" --set end=0.4 columns.begin=0 columns.end=0.4
      names+=("$recipe-longer")
      # The masks of the weights are what a projection finds again; columns are chosen anew, at once.
      tune "$recipe-longer" 8 0.001 --model "$out/$recipe/weights/best.pt" --recipe "$recipe" \
        --set method=magnitude begin=0 end=0 columns.begin=0 columns.end=0.1
      ;;
  esac
done
semisparse eval detect --dense "$out/dense" $(printf -- "--run $out/%s " "${names[@]}") --output-dir "$out"
