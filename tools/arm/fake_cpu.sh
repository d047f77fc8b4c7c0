#!/usr/bin/env bash
# A root directory for one emulated core: the arm64 world with the /proc/cpuinfo and /sys/devices/system/cpu that Linux
# shows on that core. qemu's user mode shows those of the x86 machine, and libraries that read them (cpuinfo, oneDNN)
# stumble; but it opens ROOT/<path> instead of <path> where it exists. Files are hard links: it costs no space.
#   tools/arm/fake_cpu.sh cortex-a53|cortex-a72|cortex-a76|neoverse-n1|max        prints the root directory
set -euo pipefail
. "$(dirname "$0")/paths.sh"
core=$1 count=2
made="$cache/root-$core"
basic="fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
modern="$basic atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
case $core in # variant, part and revision as in the core's manual
  cortex-a53) variant=0 part=d03 revision=4 features=$basic l1=32K l2=512K ;;
  cortex-a72) variant=0 part=d08 revision=3 features=$basic l1=32K l2=1024K ;;
  cortex-a76) variant=4 part=d0b revision=1 features=$modern l1=64K l2=512K ;;
  neoverse-n1) variant=3 part=d0c revision=1 features=$modern l1=64K l2=1024K ;;
  max) variant=0 part=d0c revision=1 features="$modern asimdfhm i8mm bf16" l1=64K l2=1024K ;;
  *)
    echo "unknown core $core: cortex-a53, cortex-a72, cortex-a76, neoverse-n1 or max" >&2
    exit 1
    ;;
esac
if [ ! -e "$made/.done" ]; then
  target="$made.$$" # renamed when complete: two programs may want it at once
  rm -rf "$target"
  cp -al "$cache/root" "$target"
  mkdir -p "$target/proc" "$target/sys/devices/system/cpu"
  for ((cpu = 0; cpu < count; cpu++)); do
    printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\n' "$cpu" "$features"
    printf 'CPU variant\t: 0x%s\nCPU part\t: 0x%s\nCPU revision\t: %s\n\n' "$variant" "$part" "$revision"
  done >"$target/proc/cpuinfo"
  all="0-$((count - 1))"
  for ((cpu = 0; cpu < count; cpu++)); do
    dir="$target/sys/devices/system/cpu/cpu$cpu"
    mkdir -p "$dir"/{regs/identification,cpufreq,topology}
    printf '0x00000000%02x%x%s%s%s\n' 0x41 "0x$variant" f "$part" "$revision" >"$dir/regs/identification/midr_el1"
    echo 2400000 >"$dir/cpufreq/cpuinfo_max_freq"
    echo 600000 >"$dir/cpufreq/cpuinfo_min_freq"
    echo 0 >"$dir/topology/physical_package_id"
    echo "$cpu" | tee "$dir/topology/core_id" >"$dir/topology/thread_siblings_list"
    echo "$all" | tee "$dir/topology/"{cluster_cpus_list,core_siblings_list} >"$dir/topology/package_cpus_list"
    index=0
    while read -r level type size shared; do
      mkdir -p "$dir/cache/index$index"
      (cd "$dir/cache/index$index" && echo "$level" >level && echo "$type" >type && echo "$size" >size &&
        echo "$shared" >shared_cpu_list && echo 64 >coherency_line_size && echo 4 >ways_of_associativity)
      index=$((index + 1))
    done <<<"1 Data $l1 $cpu
1 Instruction $l1 $cpu
2 Unified $l2 $cpu"
  done
  echo "$all" | tee "$target/sys/devices/system/cpu/"{possible,present} >"$target/sys/devices/system/cpu/online"
  touch "$target/.done"
  [ -e "$made/.done" ] || rm -rf "$made"
  mv -T "$target" "$made" 2>/dev/null || rm -rf "$target"
fi
echo "$made"
