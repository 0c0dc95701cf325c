// Which paths there are, and which of them this CPU has the instructions for.
#include <stdexcept>

#include "kernels.h"

#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace headrace {

// HEADRACE_PATHS lists, fastest first, the paths that build.py compiles: X(name) X(name)...
#define X(path)                  \
  namespace path {               \
  extern const Kernels kKernels; \
  }
HEADRACE_PATHS
#undef X

namespace {

#if defined(__x86_64__)
bool avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

// Linux gives the tiles' registers to a process that asks for them. `ARCH_REQ_XCOMP_PERM`, `XFEATURE_XTILEDATA`.
bool tiles_permitted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

bool has(const std::string& path) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  if (path == "avx2") return avx2;
  if (path == "avx512") return avx2 && avx512();
  const bool vnni = avx2 && avx512() && __builtin_cpu_supports("avx512vnni");
  if (path == "avx512_vnni") return vnni;
  const bool bf16 = vnni && __builtin_cpu_supports("avx512bf16");
  if (path == "avx512_bf16") return bf16;
  const bool amx = bf16 && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
                   __builtin_cpu_supports("amx-bf16");
  return path == "amx" && amx && tiles_permitted();
}
#else
bool has(const std::string& path) { return path == "portable"; }
#endif

}  // namespace

std::string kernel_paths() {
  std::string list;
#define X(path) \
  if (has(#path)) list += std::string(list.empty() ? "" : ", ") + "\"" #path "\"";
  HEADRACE_PATHS
#undef X
  return "[" + list + "]";
}

const Kernels& kernels_of(const std::string& name) {
#define X(path) \
  if (name == #path && has(name)) return path::kKernels;
  HEADRACE_PATHS
#undef X
  throw std::invalid_argument("this CPU does not run the kernels " + name + "; it has " + kernel_paths());
}

}  // namespace headrace
