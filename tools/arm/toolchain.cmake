# Cross-compile cpp/core for 64-bit ARM and run its tests under user-mode emulation.
# Needs (Debian): g++-aarch64-linux-gnu qemu-user
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
# A Cortex-A72 (Raspberry Pi 4) is the smallest core that must work: anything newer than ARMv8.0 raises SIGILL there.
set(SEMISPARSE_QEMU_CPU cortex-a72 CACHE STRING "core to emulate")
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64;-cpu;${SEMISPARSE_QEMU_CPU};-L;/usr/aarch64-linux-gnu")
