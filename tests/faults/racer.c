/* Swaps names under a shardtool at work, as fast as the kernel lets it, until its stdin ends.
 *
 *   racer exchange A B    A and B change places, again and again
 *   racer within DIR A    each directory in DIR, and each entry of these, changes places with A,
 *                         and back again
 *
 * Says at the end how many times two names changed places.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned long swaps;

static int exchange(const char *a, const char *b)
{
	if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE))
		return 0;
	swaps++;
	return 1;
}

static int is_over(void)
{
	struct pollfd end = { .fd = 0, .events = POLLIN };
	return poll(&end, 1, 0) > 0;
}

static void rest(void)
{
	usleep(rand() % 100);
}

static void within(const char *directory, const char *other, int depth)
{
	char path[PATH_MAX];
	struct dirent *entry;
	DIR *open_one = opendir(directory);

	if (!open_one)
		return;
	while ((entry = readdir(open_one)) && !is_over()) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) >= PATH_MAX)
			continue;
		if (depth && entry->d_type == DT_DIR)
			within(path, other, depth - 1);
		if (exchange(path, other)) {
			rest();
			exchange(path, other);
		}
	}
	closedir(open_one);
}

int main(int count, char **words)
{
	if (count != 4)
		return 2;
	srand(getpid());
	while (!is_over()) {
		if (!strcmp(words[1], "exchange"))
			exchange(words[2], words[3]);
		else
			within(words[2], words[3], 2);
		rest();
	}
	printf("%lu\n", swaps);
	return 0;
}
