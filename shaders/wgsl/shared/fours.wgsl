// Codes of formats whose function four(group, i) gives those of weights 4i to 4i + 3.

fn codes(group: u32) -> Codes {
    return Codes(
        vec4<u32>(four(group, 0u), four(group, 1u), four(group, 2u), four(group, 3u)),
        vec4<u32>(four(group, 4u), four(group, 5u), four(group, 6u), four(group, 7u)),
    );
}

fn code_words(group: u32, q: u32) -> vec2<u32> {
    return vec2<u32>(four(group, q), four(group, 4u + q));
}
#import shared/codes
