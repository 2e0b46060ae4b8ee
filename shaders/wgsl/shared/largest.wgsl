// The largest of a number of each lane, over a workgroup of LANES, at least 32; and at least 1e-30, to divide by. Every invocation
// must call it; all get it.

var<workgroup> largest_of_lane: array<f32, LANES>;
var<workgroup> largest_of_lanes: array<f32, 16>;

fn workgroup_largest(of_lane: f32, lane: u32) -> f32 {
    largest_of_lane[lane] = of_lane;
    workgroupBarrier();
    if lane < 16u {
        var of_lanes = 1e-30;
        for (var i = lane; i < LANES; i += 16u) {
            of_lanes = max(of_lanes, largest_of_lane[i]);
        }
        largest_of_lanes[lane] = of_lanes;
    }
    workgroupBarrier();
    var of_all = 1e-30;
#unroll i 16
    of_all = max(of_all, largest_of_lanes[{i}u]);
#end
    return of_all;
}
