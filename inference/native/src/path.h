// Kernels are compiled once for each set of instructions that CPUs have, and all of them lie in one library. What a header
// defines for them is in a namespace of the path's own: functions of one name would be merged by the linker, and a CPU
// would be given another's instructions. For the same reason kernels use no templates of the standard library that may
// end up as functions; build.py checks their objects.
#pragma once

#if !defined(HEADRACE_PATH)
#error "build.py defines HEADRACE_PATH: a kernels' path, or common"
#endif
