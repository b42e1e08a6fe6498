/* What the kernel alone takes for a release: the files of a directory, read into memory before, made anew by two threads
 * (or given a second name, or the same blocks), then synced. Prints the nanoseconds.
 * usage: bare_files copy|link|clone SOURCE TARGET, on one disk.
 * Nothing is looked up, checked, dated or recorded; whoever makes these files with this kernel takes as long at least. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <fts.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define THREADS 2

struct file { const char *name; char *data; size_t size; struct file *next; };
struct directory { const char *path; struct file *files; };

/* The directories, the outer ones first, and where those of each level begin. */
static struct directory *all;
static int count, levels, level_at[1024];
static int to, next;
static enum { COPY, LINK, CLONE } way;

static void take_file(struct directory *in, FTSENT *entry) {
    struct file *file = calloc(1, sizeof *file);
    file->name = strdup(entry->fts_name);
    if (way == COPY) {
        int fd = open(entry->fts_accpath, O_RDONLY | O_NOFOLLOW);
        file->size = entry->fts_statp->st_size;
        file->data = malloc(file->size + 1);
        if (fd < 0 || read(fd, file->data, file->size) != (ssize_t)file->size) err(1, "%s", entry->fts_path);
        close(fd);
    }
    file->next = in->files;
    in->files = file;
}

/* Reads one level after the other, so that those of one level stand side by side. */
static void take(char *source) {
    char *words[] = {source, NULL};
    size_t prefix = strlen(source);
    for (int found = 1; found; levels++) {
        FTS *walk = fts_open(words, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
        level_at[levels] = count;
        found = 0;
        for (FTSENT *entry; (entry = fts_read(walk));) {
            if (entry->fts_info == FTS_D && entry->fts_level == levels) {
                all = realloc(all, (count + 1) * sizeof *all);
                const char *path = entry->fts_path + prefix + (levels > 0);
                all[count++] = (struct directory){strdup(*path ? path : "."), NULL};
                found = 1;
            } else if (entry->fts_info == FTS_F && entry->fts_level == levels + 1) {
                take_file(&all[count - 1], entry);
            } else if (entry->fts_info == FTS_D && entry->fts_level > levels) {
                fts_set(walk, entry, FTS_SKIP);
            }
        }
        fts_close(walk);
    }
    level_at[levels] = count;
}

static int source_fd, target_fd;

static void make(const struct directory *directory) {
    if (mkdirat(target_fd, directory->path, 0755) && strcmp(directory->path, ".")) err(1, "%s", directory->path);
    if (!directory->files) return;
    int into = openat(target_fd, directory->path, O_RDONLY | O_DIRECTORY);
    int old = openat(source_fd, directory->path, O_RDONLY | O_DIRECTORY);
    for (const struct file *file = directory->files; file; file = file->next) {
        if (way == LINK) {
            if (linkat(old, file->name, into, file->name, 0)) err(1, "%s", file->name);
            continue;
        }
        int fd = openat(into, file->name, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (way == COPY) {
            if (fd < 0 || write(fd, file->data, file->size) != (ssize_t)file->size) err(1, "%s", file->name);
        } else {
            int from = openat(old, file->name, O_RDONLY | O_NOFOLLOW);
            if (from < 0 || fd < 0 || ioctl(fd, FICLONE, from)) err(1, "%s", file->name);
            close(from);
        }
        close(fd);
    }
    close(into);
    close(old);
}

static void *work(void *unused) {
    for (int at; (at = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < to;) make(&all[at]);
    return unused;
}

int main(int words, char **word) {
    if (words != 4) errx(2, "usage: bare_files copy|link|clone SOURCE TARGET");
    way = !strcmp(word[1], "copy") ? COPY : !strcmp(word[1], "link") ? LINK : CLONE;
    take(word[2]);
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    source_fd = open(word[2], O_RDONLY | O_DIRECTORY);
    target_fd = mkdir(word[3], 0755) ? -1 : open(word[3], O_RDONLY | O_DIRECTORY);
    if (source_fd < 0 || target_fd < 0) err(1, "%s", word[3]);
    for (int level = 0; level < levels; level++) {
        pthread_t others[THREADS - 1];
        next = level_at[level];
        to = level_at[level + 1];
        for (int i = 0; i < THREADS - 1; i++) pthread_create(&others[i], NULL, work, NULL);
        work(NULL);
        for (int i = 0; i < THREADS - 1; i++) pthread_join(others[i], NULL);
    }
    if (syncfs(target_fd)) err(1, "sync");
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%lld\n", (ended.tv_sec - begun.tv_sec) * 1000000000LL + ended.tv_nsec - begun.tv_nsec);
}
