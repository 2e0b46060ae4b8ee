// Q4_0: d * (code - 8). Planes: 16 bytes of codes, a half d.
#define ZERO_POINT
#define OWN_QUAD_SCALES
#import shared/nibbles

const ZERO_POINT: f32 = 8.0;

fn scales(group: u32) -> Scales {
    let d = half_to_float(plane_half(params.plane1, group));
    return one_scale(d, -8.0 * d);
}

fn quad_scales(quad: u32) -> QuadScales {
    let d = quad_halves(params.plane1, quad);
    return one_quad_scale(d, -8.0 * d);
}
#import shared/codes
