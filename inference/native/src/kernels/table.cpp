#include "table.h"

#include "operators.h"

namespace headrace {
namespace HEADRACE_PATH {

extern const Kernels kKernels;
const Kernels kKernels = {
    .multiply_tile = multiply_tile,
    .set_inputs = set_inputs,
    .rms_norm = rms_norm,
    .rotate = rotate,
    .spread = spread,
    .gate = gate_all,
    .scale = scale,
    .add_scaled = add_scaled,
    .dot = dot,
    .write_kv = write_kv,
    .attend = attend,
    .attend_one = attend_one,
    .merge = merge,
    .look_at = look_at,
    .best_allowed = best_allowed,
    .temper = temper,
    .next_above = next_above,
};

}  // namespace HEADRACE_PATH
}  // namespace headrace
