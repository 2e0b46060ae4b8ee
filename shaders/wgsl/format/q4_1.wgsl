// Q4_1: d * code + m. Planes: 16 bytes of codes, the halves d and m.
#import shared/nibbles

fn scales(group: u32) -> Scales {
    let dm = halves_to_floats(plane_word(params.plane1, group));
    return one_scale(dm.x, dm.y);
}
#import shared/codes
