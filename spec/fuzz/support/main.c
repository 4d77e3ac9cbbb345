/* Runs a fuzz target over files and folders of inputs, without a fuzzer: for the tests of every
 * build. Invariant: the name of an input is on stderr before it runs, so that a crash is known by
 * it when asked for by FUZZ_VERBOSE. */
#include <dirent.h>
#include <sys/stat.h>
#include "support/fuzz.h"

static unsigned count;

static void run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct fuzz_text text = {0};
    char piece[4096];
    size_t n;
    if (!file) {
        perror(path);
        exit(2);
    }
    while ((n = fread(piece, 1, sizeof piece, file)) > 0)
        fuzz_put(&text, piece, n);
    fclose(file);
    if (getenv("FUZZ_VERBOSE"))
        fprintf(stderr, "%s\n", path);
    char *exact = fuzz_exact(text.ptr, text.len);
    LLVMFuzzerTestOneInput((const uint8_t *)exact, text.len);
    free(exact);
    fuzz_free(&text);
    count++;
}

static void run_path(const char *path)
{
    struct stat st;
    struct dirent **names;
    char inner[4096];
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        run_file(path);
        return;
    }
    int n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        snprintf(inner, sizeof inner, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            run_path(inner);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        run_path(argv[i]);
    printf("%u inputs\n", count);
    return 0;
}
