// llama.cpp's speed by its library, measured as llama-bench measures it, where there is neither Node.js nor a build of it.
//
//   peer FOLDER MODEL.gguf PROMPT GENERATE RUNS [DEPTH]
//
// FOLDER holds libggml-*.so, of which the best for this machine are loaded. Each test has runs that warm up, for a second: until
// then a card's clocks rise. DEPTH tokens come before each run, not timed. Prints a line a test: | test | mean ± deviation |, in tokens a second.
// The device is chosen by GGML_VK_VISIBLE_DEVICES. Built by benches/gpu.sh --pack.
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ggml-backend.h"
#include "llama.h"

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

static void only_warnings(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level >= GGML_LOG_LEVEL_WARN) fputs(text, stderr);
}

// Any ids will do; those that every vocabulary has.
static llama_token id_of(int index) { return (llama_token)(((long)index * 7919 + 1000) % 30000); }

// Computes `count` tokens in steps of `step`, and waits for them.
static bool compute(struct llama_context *context, int count, int step) {
    llama_token ids[512];
    for (int done = 0; done < count;) {
        int length = count - done < step ? count - done : step;
        for (int i = 0; i < length; i++) ids[i] = id_of(done + i);
        if (llama_decode(context, llama_batch_get_one(ids, length))) return false;
        llama_synchronize(context);
        done += length;
    }
    return true;
}

static bool test(struct llama_context *context, const char *kind, int count, int step, int runs, int depth) {
    double sum = 0, squares = 0;
    double begin = now();
    for (int run = 0; run <= runs; run++) {
        llama_memory_clear(llama_get_memory(context), true);
        if (!compute(context, depth, 512)) return false;
        // The first warms up, by one token where each is a step of its own.
        int length = run == 0 && step == 1 ? 1 : count;
        double start = now();
        if (!compute(context, length, step)) return false;
        double speed = length / (now() - start);
        if (run > 0) sum += speed, squares += speed * speed;
        if (run == 0 && now() - begin < 1) run--;
    }
    double mean = sum / runs;
    double variance = runs > 1 ? (squares - runs * mean * mean) / (runs - 1) : 0;
    char at[32] = "";
    if (depth > 0) snprintf(at, sizeof at, " @ d%d", depth);
    printf("| %s%d%s | %.2f ± %.2f |\n", kind, count, at, mean, sqrt(variance > 0 ? variance : 0));
    fflush(stdout);
    return true;
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fputs("peer FOLDER MODEL.gguf PROMPT GENERATE RUNS [DEPTH]\n", stderr);
        return 2;
    }
    int prompt = atoi(argv[3]), generate = atoi(argv[4]), runs = atoi(argv[5]);
    int depth = argc > 6 ? atoi(argv[6]) : 0;
    if (runs < 1 || prompt < 0 || generate < 0 || depth < 0) {
        fputs("peer: PROMPT, GENERATE and DEPTH are 0 or more, RUNS 1 or more\n", stderr);
        return 2;
    }
    llama_log_set(only_warnings, NULL);
    ggml_backend_load_all_from_path(argv[1]);
    llama_backend_init();
    bool on_gpu = false;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        bool is_cpu = ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
        on_gpu |= !is_cpu;
        fprintf(stderr, "device %s: %s\n", ggml_backend_dev_name(device), ggml_backend_dev_description(device));
    }
    if (!on_gpu) {
        fputs("peer: llama.cpp sees no GPU\n", stderr);
        return 1;
    }
    struct llama_model_params of_model = llama_model_default_params();
    of_model.n_gpu_layers = 999;
    double start = now();
    struct llama_model *model = llama_model_load_from_file(argv[2], of_model);
    if (!model) return 1;
    fprintf(stderr, "loaded in %.2f s\n", now() - start);
    struct llama_context_params of_context = llama_context_default_params();
    of_context.n_ctx = depth + (prompt > generate ? prompt : generate) + 16;
    of_context.n_batch = 512;
    of_context.n_ubatch = 512;
    of_context.swa_full = false;
    of_context.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    struct llama_context *context = llama_init_from_model(model, of_context);
    if (!context) return 1;
    if (prompt > 0 && !test(context, "pp", prompt, 512, runs, depth)) return 1;
    if (generate > 0 && !test(context, "tg", generate, 1, runs, depth)) return 1;
    llama_free(context);
    llama_model_free(model);
    return 0;
}
