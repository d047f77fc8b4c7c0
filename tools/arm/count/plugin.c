// SPDX-License-Identifier: Apache-2.0
// A qemu plugin that counts what an emulated program executes between two marks.
//   cc -O2 -shared -fPIC -o plugin.so plugin.c && qemu-aarch64 -plugin ./plugin.so,out=FILE -d plugin PROGRAM
// The program marks with an unused system call: syscall(5000, 0, 0) starts, syscall(5000, 1, tag) ends a
// region. For each region FILE gets a line "region TAG" and, for every block of instructions that ran, "RUNS
// ADDRESS WORD WORD...": how often, where it lies, and its instructions, in hexadecimal. Counts are exact for
// one thread of the program.
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What is used of qemu's plugin interface (versions 1 to 2, qemu 6 to 8): its header is in no package.
typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { kInlineAdd = 0 };
typedef void (*translate_callback)(plugin_id, struct qemu_plugin_tb*);
typedef void (*syscall_callback)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                 uint64_t, uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translate_callback);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb*, int operation, void* counter,
                                              uint64_t amount);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_callback);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb*);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn*);
#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { kMark = 5000, kStart = 0, kEnd = 1 };

typedef struct Block {
  uint64_t runs, runs_at_start, address;
  size_t count;
  struct Block* next;
  uint32_t words[];
} Block;

static Block* blocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE* out;

static void on_translate(plugin_id id, struct qemu_plugin_tb* tb) {
  (void)id;
  const size_t count = qemu_plugin_tb_n_insns(tb);
  Block* const block = calloc(1, sizeof(Block) + count * sizeof(uint32_t));
  block->count = count;
  block->address = qemu_plugin_tb_vaddr(tb);
  for (size_t i = 0; i < count; ++i)
    memcpy(&block->words[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof(uint32_t));
  pthread_mutex_lock(&lock);
  block->next = blocks;
  blocks = block;
  pthread_mutex_unlock(&lock);
  qemu_plugin_register_vcpu_tb_exec_inline(tb, kInlineAdd, &block->runs, 1);
}

static void on_syscall(plugin_id id, unsigned cpu, int64_t number, uint64_t what, uint64_t tag, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)cpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number != kMark) return;
  pthread_mutex_lock(&lock);
  if (what == kStart)
    for (Block* b = blocks; b != NULL; b = b->next) b->runs_at_start = b->runs;
  if (what == kEnd) {
    fprintf(out, "region %" PRIu64 "\n", tag);
    for (const Block* b = blocks; b != NULL; b = b->next) {
      if (b->runs == b->runs_at_start) continue;
      fprintf(out, "%" PRIu64 " %" PRIx64, b->runs - b->runs_at_start, b->address);
      for (size_t i = 0; i < b->count; ++i) fprintf(out, " %08" PRIx32, b->words[i]);
      fputc('\n', out);
    }
    fflush(out);
  }
  pthread_mutex_unlock(&lock);
}

EXPORT int qemu_plugin_install(plugin_id id, const void* info, int argc, char** argv) {
  (void)info;
  for (int i = 0; i < argc; ++i)
    if (strncmp(argv[i], "out=", 4) == 0) out = fopen(argv[i] + 4, "w");
  if (out == NULL) {
    fprintf(stderr, "plugin: give a file to write to, out=FILE\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
  return 0;
}
