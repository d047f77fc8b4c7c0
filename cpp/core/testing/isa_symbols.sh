#!/bin/sh
# Objects compiled for an instruction set must not define functions that other objects share: the linker keeps
# one copy of an inline function, and if it is the AVX-512 one, every older processor meets an illegal instruction.
# Arguments: the objects of the core. Environment: NM. Fails if one under avx2/avx512/neon_fp16 has a weak function that is not about its Vec.
status=0
for object in "$@"; do
  case $object in
    */avx*.o | */neon_fp16*.o)
      shared=$("${NM:-nm}" -C "$object" | grep ' W ' | grep -v '::Vec')
      if [ -n "$shared" ]; then
        printf '%s defines functions that are not its own:\n%s\n' "$object" "$shared"
        status=1
      fi
      ;;
  esac
done
exit $status
