// Metal's types and functions in CUDA, as much as naga's texts of the kernels use: so that NVIDIA's compiler takes them.
// For counting instructions only; what it computes is tested nowhere.
#pragma once
typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;
#define FN __device__ __forceinline__
template <class To, class From> FN To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "as_type");
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}
// A word of two halves, of which only floats are made.
struct half2 { ushort low, high; };
// A word of four signed bytes.
struct packed_char4;
namespace metal {
using ::uint;
FN float half_of(ushort bits) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(bits));
    return f;
}
FN ushort to_half(float f) {
    ushort bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(f));
    return bits;
}
template <class T, int N> struct V;
template <class T> struct same { typedef T type; };
template <class T> using S = typename same<T>::type;
template <class T> struct alignas(2 * sizeof(T)) V<T, 2> {
    T x, y;
    V() = default;
    FN V(T a) : x(a), y(a) {}
    FN V(T a, T b) : x(a), y(b) {}
    template <class F> FN explicit V(V<F, 2> v) : x(T(v.x)), y(T(v.y)) {}
    FN explicit V(half2 v) : x(half_of(v.low)), y(half_of(v.high)) {}
    FN T &operator[](uint i) { return (&x)[i]; }
    FN const T &operator[](uint i) const { return (&x)[i]; }
};
template <class T> struct V<T, 3> {
    T x, y, z;
    V() = default;
    FN V(T a) : x(a), y(a), z(a) {}
    FN V(T a, T b, T c) : x(a), y(b), z(c) {}
    FN T &operator[](uint i) { return (&x)[i]; }
};
template <class T> struct alignas(4 * sizeof(T)) V<T, 4> {
    union {
        struct { T x, y, z, w; };
        struct { V<T, 2> xy, zw; };
    };
    V() = default;
    FN V(T a) : x(a), y(a), z(a), w(a) {}
    FN V(T a, T b, T c, T d) : x(a), y(b), z(c), w(d) {}
    FN V(V<T, 2> a, V<T, 2> b) : x(a.x), y(a.y), z(b.x), w(b.y) {}
    template <class F> FN explicit V(V<F, 4> v) : x(T(v.x)), y(T(v.y)), z(T(v.z)), w(T(v.w)) {}
    FN T &operator[](uint i) { return (&x)[i]; }
    FN const T &operator[](uint i) const { return (&x)[i]; }
};
#define OPERATOR(o) \
    template <class T> FN V<T, 2> operator o(V<T, 2> a, V<T, 2> b) { return V<T, 2>(a.x o b.x, a.y o b.y); } \
    template <class T> FN V<T, 4> operator o(V<T, 4> a, V<T, 4> b) { \
        return V<T, 4>(a.x o b.x, a.y o b.y, a.z o b.z, a.w o b.w); } \
    template <class T, int N> FN V<T, N> operator o(V<T, N> a, S<T> b) { return a o V<T, N>(b); } \
    template <class T, int N> FN V<T, N> operator o(S<T> a, V<T, N> b) { return V<T, N>(a) o b; } \
    template <class T, int N> FN V<T, N> &operator o##=(V<T, N> &a, V<T, N> b) { return a = a o b; }
OPERATOR(+) OPERATOR(-) OPERATOR(*) OPERATOR(/) OPERATOR(&) OPERATOR(|)
#define SHIFT(o) \
    template <class T, class U> FN V<T, 2> operator o(V<T, 2> a, V<U, 2> b) { return V<T, 2>(a.x o b.x, a.y o b.y); } \
    template <class T, class U> FN V<T, 4> operator o(V<T, 4> a, V<U, 4> b) { \
        return V<T, 4>(a.x o b.x, a.y o b.y, a.z o b.z, a.w o b.w); }
SHIFT(<<) SHIFT(>>)
#define COMPARE(o) \
    template <class T> FN V<bool, 2> operator o(V<T, 2> a, V<T, 2> b) { return V<bool, 2>(a.x o b.x, a.y o b.y); } \
    template <class T> FN V<bool, 4> operator o(V<T, 4> a, V<T, 4> b) { \
        return V<bool, 4>(a.x o b.x, a.y o b.y, a.z o b.z, a.w o b.w); }
COMPARE(<) COMPARE(>) COMPARE(<=) COMPARE(>=) COMPARE(==) COMPARE(!=)
template <class T> FN V<T, 2> operator-(V<T, 2> a) { return V<T, 2>(-a.x, -a.y); }
template <class T> FN V<T, 4> operator-(V<T, 4> a) { return V<T, 4>(-a.x, -a.y, -a.z, -a.w); }
#define VECTORS(T) typedef V<T, 2> T##2; typedef V<T, 3> T##3; typedef V<T, 4> T##4;
VECTORS(float) VECTORS(int) VECTORS(uint) VECTORS(bool)
FN bool all(bool2 v) { return v.x && v.y; }
FN uint min(uint a, uint b) { return a < b ? a : b; }
FN uint max(uint a, uint b) { return a > b ? a : b; }
FN int min(int a, int b) { return a < b ? a : b; }
FN int max(int a, int b) { return a > b ? a : b; }
FN float min(float a, float b) { return fminf(a, b); }
FN float max(float a, float b) { return fmaxf(a, b); }
FN uint4 max(uint4 a, uint4 b) { return uint4(max(a.x, b.x), max(a.y, b.y), max(a.z, b.z), max(a.w, b.w)); }
FN float clamp(float x, float low, float high) { return fminf(fmaxf(x, low), high); }
FN uint clamp(uint x, uint low, uint high) { return min(max(x, low), high); }
FN float abs(float x) { return fabsf(x); }
FN float exp(float x) { return __expf(x); }
FN float tanh(float x) { return ::tanhf(x); }
FN float sqrt(float x) { return __fsqrt_rn(x); }
FN float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FN float4 fma(float4 a, float4 b, float4 c) { return float4(fma(a.x, b.x, c.x), fma(a.y, b.y, c.y), fma(a.z, b.z, c.z), fma(a.w, b.w, c.w)); }
template <class T> FN T select(T no, S<T> yes, bool which) { return which ? yes : no; }
template <class T> FN V<T, 2> select(V<T, 2> n, V<T, 2> y, bool2 w) { return V<T, 2>(w.x ? y.x : n.x, w.y ? y.y : n.y); }
template <class T> FN V<T, 4> select(V<T, 4> n, V<T, 4> y, bool4 w) {
    return V<T, 4>(w.x ? y.x : n.x, w.y ? y.y : n.y, w.z ? y.z : n.z, w.w ? y.w : n.w); }
FN float dot(float2 a, float2 b) { return a.x * b.x + a.y * b.y; }
FN float dot(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }
#define EACH(name) FN float4 name(float4 a) { return float4(name(a.x), name(a.y), name(a.z), name(a.w)); }
#define EACH_PAIR(name) \
    FN float4 name(float4 a, float4 b) { return float4(name(a.x, b.x), name(a.y, b.y), name(a.z, b.z), name(a.w, b.w)); }
FN float rint(float x) { return rintf(x); }
EACH(abs) EACH(rint) EACH(exp) EACH(tanh) EACH_PAIR(min) EACH_PAIR(max)
FN float4 clamp(float4 x, float low, float high) { return min(max(x, float4(low)), float4(high)); }
FN half2 to_halves(float2 v) { return half2{to_half(v.x), to_half(v.y)}; }
FN uint popcount(uint x) { return __popc(x); }
FN uint extract_bits(uint x, uint offset, uint count) { return (x >> offset) & ((1u << count) - 1u); }
FN float simd_sum(float x) {
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
FN float simd_shuffle(float x, uint lane) { return __shfl_sync(0xffffffffu, x, lane); }
enum class mem_flags { mem_none, mem_device, mem_threadgroup, mem_texture };
FN void threadgroup_barrier(mem_flags) { __syncthreads(); }
}
struct packed_char4 {
    uint word;
    FN explicit packed_char4(metal::int4 v) : word((v.x & 255) | (v.y & 255) << 8 | (v.z & 255) << 16 | v.w << 24) {}
    packed_char4() = default;
};
FN int dot4(packed_char4 a, packed_char4 b) { return __dp4a(int(a.word), int(b.word), 0); }
