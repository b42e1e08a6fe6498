/* Runs a program some times and writes of each run, on a line of a file: nanoseconds of wall time, the largest resident
 * memory in KiB, and its status. usage: stopwatch FILE TIMES PROGRAM ARGUMENT...
 * A program of a millisecond is not to be measured together with the interpreter that starts it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int count, char **words) {
    if (count < 4) return 2;
    FILE *out = fopen(words[1], "we");
    if (!out) return 2;
    for (long left = atol(words[2]); left > 0; left--) {
        pid_t child;
        int status;
        struct rusage used;
        long long started = now();
        int failed = posix_spawnp(&child, words[3], NULL, NULL, words + 3, environ);
        if (failed) {
            fprintf(stderr, "stopwatch: cannot run %s: %s\n", words[3], strerror(failed));
            return 127;
        }
        while (wait4(child, &status, 0, &used) < 0 && errno == EINTR) {}
        long long taken = now() - started;
        fprintf(out, "%lld %ld %d\n", taken, used.ru_maxrss,
                WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    return fclose(out) != 0;
}
