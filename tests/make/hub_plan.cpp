// Which files of a repository llama.cpp takes: a line "user/repo[:tag]" on stdin gives a line of the chosen file and its
// parts, separated by tabs (an empty line for none). Used by hub_choices.py.
//
// Build against a llama.cpp tree L and its built library libllama-common:
//   g++ -std=c++17 -IL/common -IL/include -IL/ggml/include -IL/vendor hub_plan.cpp -o hub_plan -lllama-common
#include "common.h"
#include "download.h"
#include "log.h"

#include <iostream>
#include <string>

int main() {
    common_log_set_verbosity_thold(-1);
    std::string line;
    while (std::getline(std::cin, line)) {
        common_params_model model;
        model.hf_repo = line;
        const common_download_hf_plan plan = common_download_get_hf_plan(model, common_download_opts());
        std::cout << plan.primary.path;
        for (const auto & file : plan.model_files) {
            std::cout << '\t' << file.path;
        }
        std::cout << std::endl;
    }
}
