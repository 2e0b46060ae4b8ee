// Compiles HLSL files with dxcompiler.dll or d3dcompiler_47.dll, many in one process, as wgpu-hal calls them.
//
//   hlslc dxc|fxc DLL FOLDER
//
// Reads lines "FILE <tab> TARGET <tab> ENTRY" from stdin. Writes "> FILE" before each, then "= HRESULT MILLISECONDS BYTES"
// (of processor time) and the compiler's messages, and "." on a line by itself. Build: x86_64-w64-mingw32-gcc -O1 -o hlslc.exe hlslc.c
#define COBJMACROS
#include <windows.h>
#include <d3dcommon.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef HRESULT(WINAPI *Create)(const GUID *, const GUID *, void **);
typedef HRESULT(WINAPI *Fxc)(const void *, SIZE_T, const char *, const void *, void *, const char *, const char *, UINT,
                             UINT, ID3DBlob **, ID3DBlob **);
static const GUID CLSID_Compiler = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID IID_Compiler3 = {0x228B4687, 0x5A6A, 0x4730, {0x90, 0x0C, 0x97, 0x02, 0xB2, 0x20, 0x3F, 0x54}};
static const GUID IID_Result = {0x58346CDA, 0xDDE7, 0x4497, {0x94, 0x61, 0x6F, 0x87, 0xAF, 0x5E, 0x06, 0x59}};
static const GUID IID_BlobUtf8 = {0x3DA636C9, 0xBA71, 0x4024, {0xA3, 0x01, 0x30, 0xCB, 0xF1, 0x25, 0x30, 0x5B}};
static const GUID IID_Blob = {0x8BA5FB08, 0x5195, 0x40e2, {0xAC, 0x58, 0x0D, 0x98, 0x9C, 0x3A, 0x01, 0x02}};
typedef struct {
    const void *ptr;
    SIZE_T size;
    UINT encoding;
} Buffer;
typedef struct {
    void **methods;
} Com;
#define CALL(object, n, ...) ((HRESULT(WINAPI *)(void *, ##__VA_ARGS__))((Com *)(object))->methods[n])

static void release(void *object) {
    if (object) ((ULONG(WINAPI *)(void *))((Com *)object)->methods[2])(object);
}
static void *blob_data(void *blob) { return ((void *(WINAPI *)(void *))((Com *)blob)->methods[3])(blob); }
static SIZE_T blob_size(void *blob) { return ((SIZE_T(WINAPI *)(void *))((Com *)blob)->methods[4])(blob); }

// This process's own time: other programs' are not the compiler's.
static double milliseconds_spent(void) {
    FILETIME created, ended, kernel, user;
    GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user);
    double high = (double)kernel.dwHighDateTime + user.dwHighDateTime;
    return (high * 4294967296.0 + kernel.dwLowDateTime + user.dwLowDateTime) / 1e4;
}

// wgpu-hal's arguments.
static HRESULT compile_dxc(void *compiler, const char *text, SIZE_T length, const char *entry, const char *target,
                           void **code, void **message) {
    WCHAR wide_entry[128], wide_target[16];
    MultiByteToWideChar(CP_UTF8, 0, entry, -1, wide_entry, 128);
    MultiByteToWideChar(CP_UTF8, 0, target, -1, wide_target, 16);
    const WCHAR *arguments[] = {L"-E", wide_entry, L"-T", wide_target, L"-HV", L"2018", L"-no-warnings", L"-Ges"};
    Buffer buffer = {text, length, CP_UTF8};
    void *result = 0;
    HRESULT status = CALL(compiler, 3, Buffer *, const WCHAR **, UINT, void *, const GUID *, void **)(
        compiler, &buffer, arguments, sizeof arguments / sizeof *arguments, 0, &IID_Result, &result);
    if (FAILED(status)) return status;
    status = E_FAIL;
    CALL(result, 3, HRESULT *)(result, &status);
    CALL(result, 7, int, const GUID *, void **, void **)(result, 2, &IID_BlobUtf8, message, 0);
    if (SUCCEEDED(status)) CALL(result, 7, int, const GUID *, void **, void **)(result, 1, &IID_Blob, code, 0);
    release(result);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "hlslc dxc|fxc DLL FOLDER\n"), 2;
    int is_dxc = !strcmp(argv[1], "dxc");
    HMODULE dll = LoadLibraryA(argv[2]);
    if (!dll) return fprintf(stderr, "%s: error %lu\n", argv[2], GetLastError()), 2;
    void *compiler = 0;
    Fxc fxc = 0;
    if (is_dxc) {
        Create create = (Create)(void *)GetProcAddress(dll, "DxcCreateInstance");
        HRESULT status = create ? create(&CLSID_Compiler, &IID_Compiler3, &compiler) : E_FAIL;
        if (FAILED(status)) return fprintf(stderr, "DxcCreateInstance: %lx\n", status), 2;
    } else if (!(fxc = (Fxc)(void *)GetProcAddress(dll, "D3DCompile")))
        return fprintf(stderr, "no D3DCompile\n"), 2;
    char line[1024];
    while (fgets(line, sizeof line, stdin)) {
        char *file = strtok(line, "\t"), *target = strtok(0, "\t"), *entry = strtok(0, "\t\r\n");
        if (!entry) return fprintf(stderr, "FILE, TARGET and ENTRY are wanted\n"), 2;
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", argv[3], file);
        FILE *in = fopen(path, "rb");
        if (!in) return perror(path), 2;
        static char text[4 << 20];
        SIZE_T length = fread(text, 1, sizeof text, in);
        fclose(in);
        printf("> %s\n", file), fflush(stdout);
        void *code = 0, *message = 0;
        double begun = milliseconds_spent();
        HRESULT status =
            is_dxc ? compile_dxc(compiler, text, length, entry, target, &code, &message)
                   : fxc(text, length, 0, 0, 0, entry, target, 1 << 11 /* D3DCOMPILE_ENABLE_STRICTNESS */, 0,
                         (ID3DBlob **)&code, (ID3DBlob **)&message);
        printf("= %08lx %.0f %u\n", status, milliseconds_spent() - begun, code ? (unsigned)blob_size(code) : 0);
        if (message && blob_size(message) > 1) printf("%.*s\n", (int)blob_size(message), (char *)blob_data(message));
        printf(".\n"), fflush(stdout);
        release(message);
        release(code);
    }
    return 0;
}
