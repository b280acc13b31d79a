/* Run a program and have something befall it at the n-th of its system calls.
 *
 *     inject CALLS NUMBER ACTION SEEN PLACES PROGRAM ...
 *
 * Or, as a library, have it befall a process that has been forked already: it calls
 * be_supervised(), and its parent supervise().
 *
 * What strace --inject does to one thread, without stopping it at all its other calls: seccomp
 * hands over those of the names CALLS (separated by commas), and those of the program's first
 * thread are counted: all, or with PLACES (separated by colons) those that have to do with one of
 * them or what is below it. A place that ends in a star is the first name that is met of those
 * that begin so. ACTION is done before the call:
 *
 *     ENOSPC ...   the call is not made and fails
 *     KILL         SIGKILL
 *     KILL_CREATING  the same, and only those openat count that may create
 *     SWAP         the two PLACES change places
 *     FLASH        they do, and again at the next call that counts
 *
 * The file SEEN is there when it came so far, and says so if two places were swapped then; else it
 * has the path that the call had to do with. Ends as the program ends, which does not outlive it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* How a call names what it has to do with: a descriptor; a path; a path from a descriptor; two of
 * a kind; a text, and then a path, or one from a descriptor. */
enum shape { NOTHING, FD, PATH, AT, PATHS, ATS, TEXT_PATH, TEXT_AT };

#define CALL(name, shape) {#name, SYS_##name, shape}
static const struct call { const char *name; int number; enum shape shape; } calls[] = {
	CALL(openat, AT), CALL(newfstatat, AT), CALL(readlinkat, AT), CALL(faccessat, AT),
	CALL(getdents64, FD), CALL(statfs, PATH), CALL(fstatfs, FD), CALL(fstat, FD),
	CALL(read, FD), CALL(readv, FD), CALL(pread64, FD), CALL(write, FD), CALL(writev, FD),
	CALL(pwrite64, FD), CALL(fsync, FD), CALL(fdatasync, FD), CALL(flock, FD),
	CALL(mkdirat, AT), CALL(renameat, ATS), CALL(renameat2, ATS), CALL(linkat, ATS),
	CALL(symlinkat, TEXT_AT), CALL(unlinkat, AT), CALL(fchmod, FD), CALL(fchmodat, AT),
	CALL(fchown, FD), CALL(fchownat, AT), CALL(utimensat, AT), CALL(ftruncate, FD),
	CALL(truncate, PATH), CALL(fallocate, FD), CALL(copy_file_range, FD), CALL(sendfile, FD),
	CALL(setxattr, PATH), CALL(fsetxattr, FD), CALL(lsetxattr, PATH), CALL(getxattr, PATH),
	CALL(lgetxattr, PATH), CALL(fgetxattr, FD), CALL(listxattr, PATH), CALL(llistxattr, PATH),
	CALL(flistxattr, FD), CALL(sync, NOTHING), CALL(syncfs, FD), CALL(sync_file_range, FD),
#ifdef SYS_rename /* what only older architectures have */
	CALL(open, PATH), CALL(stat, PATH), CALL(lstat, PATH), CALL(access, PATH),
	CALL(readlink, PATH), CALL(mkdir, PATH), CALL(rename, PATHS), CALL(link, PATHS),
	CALL(symlink, TEXT_PATH), CALL(unlink, PATH), CALL(rmdir, PATH), CALL(chmod, PATH),
	CALL(chown, PATH), CALL(lchown, PATH),
#endif
};

static const struct { const char *name; int number; } errors[] = {
	{"EACCES", EACCES}, {"EMFILE", EMFILE}, {"EIO", EIO},       {"ENFILE", ENFILE},
	{"EPERM", EPERM},   {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"ENOLCK", ENOLCK},
	{"EROFS", EROFS},   {"EMLINK", EMLINK}, {"EINTR", EINTR},
};

static void die(const char *what) {
	fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
	_exit(125);
}

static const struct call *call_named(const char *name) {
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(calls[i].name, name)) return &calls[i];
	errno = EINVAL;
	die(name);
	return NULL;
}

static enum shape shape_of(int number) {
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (calls[i].number == number) return calls[i].shape;
	return NOTHING;
}

static int error_named(const char *name) {
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
		if (!strcmp(errors[i].name, name)) return errors[i].number;
	errno = EINVAL;
	die(name);
	return -1;
}

#define MOST_CALLS 60

static int listener_for(char *names) {
	struct sock_filter filter[2 * MOST_CALLS + 2] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	unsigned short length = 1;
	for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
		if (length > 2 * MOST_CALLS) errno = E2BIG, die(name);
		filter[length++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call_named(name)->number, 0, 1);
		filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	}
	filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {length, filter};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
	/* A call that waits for us must not be begun anew when a signal comes: it would count twice. */
	unsigned flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
	int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
	if (listener < 0) die("seccomp");
	return listener;
}

static void send_over(int channel, int descriptor) {
	char byte = 0, room[CMSG_SPACE(sizeof descriptor)] = {0};
	struct iovec one = {&byte, 1};
	struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = room,
							 .msg_controllen = sizeof room};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof descriptor);
	memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
	if (sendmsg(channel, &message, 0) != 1) die("sendmsg");
}

static int received(int channel) {
	char byte, room[CMSG_SPACE(sizeof(int))];
	struct iovec one = {&byte, 1};
	struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = room,
							 .msg_controllen = sizeof room};
	int descriptor;
	if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) != 1) die("recvmsg");
	if (!CMSG_FIRSTHDR(&message)) die("no descriptor");
	memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptor);
	return descriptor;
}

static int is_below(const char *path, char **place) {
	size_t length = strlen(*place);
	if (length && (*place)[length - 1] == '*') {
		if (strncmp(path, *place, length - 1)) return 0;
		length += strcspn(path + length - 1, "/") - 1;
		if (!(*place = strndup(path, length))) die("strndup");
		return 1;
	}
	return !strncmp(path, *place, length) && (!path[length] || path[length] == '/');
}

static void path_of_link(char *path, size_t size, const char *format, pid_t pid, int descriptor) {
	char link[64];
	snprintf(link, sizeof link, format, pid, descriptor);
	ssize_t length = readlink(link, path, size - 1);
	path[length < 0 ? 0 : length] = 0;
}

static void path_from(char *path, size_t size, pid_t pid, int descriptor, uint64_t address) {
	char memory[64], text[PATH_MAX] = "";
	*path = 0;
	snprintf(memory, sizeof memory, "/proc/%d/mem", pid);
	int opened = open(memory, O_RDONLY | O_CLOEXEC);
	if (opened < 0) die(memory);
	/* It may end at a page's end: what can be read of it is enough, and ends in zeros. */
	for (size_t done = 0; done < sizeof text - 1 && memchr(text, 0, done) == NULL;) {
		size_t page = 4096 - (address + done) % 4096;
		if (page > sizeof text - 1 - done) page = sizeof text - 1 - done;
		ssize_t got = pread(opened, text + done, page, (off_t)(address + done));
		if (got <= 0) break;
		done += (size_t)got;
	}
	close(opened);
	if (*text != '/') {
		if (descriptor == AT_FDCWD) path_of_link(path, size, "/proc/%d/cwd", pid, 0);
		else path_of_link(path, size, "/proc/%d/fd/%d", pid, descriptor);
		if (*text) strncat(path, "/", size - strlen(path) - 1);
	}
	strncat(path, text, size - strlen(path) - 1);
}

static void paths_of(const struct seccomp_notif *asked, char paths[2][2 * PATH_MAX]) {
	*paths[0] = *paths[1] = 0;
	const __u64 *words = asked->data.args;
	pid_t pid = (pid_t)asked->pid;
	size_t size = 2 * PATH_MAX;
	switch (shape_of(asked->data.nr)) {
	case NOTHING: break;
	case FD: path_of_link(paths[0], size, "/proc/%d/fd/%d", pid, (int)words[0]); break;
	case PATHS: path_from(paths[1], size, pid, AT_FDCWD, words[1]); /* fall through */
	case PATH: path_from(paths[0], size, pid, AT_FDCWD, words[0]); break;
	case ATS: path_from(paths[1], size, pid, (int)words[2], words[3]); /* fall through */
	case AT: path_from(paths[0], size, pid, (int)words[0], words[1]); break;
	case TEXT_PATH: path_from(paths[0], size, pid, AT_FDCWD, words[1]); break;
	case TEXT_AT: path_from(paths[0], size, pid, (int)words[1], words[2]); break;
	}
}

static int counts(char paths[2][2 * PATH_MAX], char *places[2]) {
	for (int i = 0; i < 2; i++)
		for (int j = 0; j < 2; j++)
			if (*paths[i] && places[j] && is_below(paths[i], &places[j])) return 1;
	return 0;
}

static int swap(char *const places[2]) {
	if (!renameat2(AT_FDCWD, places[0], AT_FDCWD, places[1], RENAME_EXCHANGE)) return 1;
	if (errno != ENOENT) die("swap");
	return 0; /* one of them is not there: nothing to swap, yet or any more */
}

/* Be the process that it befalls, from here on. */
void be_supervised(int channel, pid_t supervisor, char *calls) {
	/* Without an answer its calls would fail, and it would go on all the same. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != supervisor) die("no supervisor");
	int listener = listener_for(calls);
	send_over(channel, listener);
	close(listener); /* the supervisor has it now */
}

/* Supervise a child that was forked, given NUMBER ACTION SEEN PLACES; return its status. */
int supervise(int channel, pid_t child, char **words) {
	char *places[2] = {NULL, NULL}, *seen_at = words[2];
	places[0] = strtok(words[3], ":");
	places[1] = strtok(NULL, ":");
	int is_kill = !strcmp(words[1], "KILL"), is_flash = !strcmp(words[1], "FLASH");
	int is_swap = is_flash || !strcmp(words[1], "SWAP");
	int is_creating = !strcmp(words[1], "KILL_CREATING");
	is_kill |= is_creating;
	int error = is_kill || is_swap ? 0 : error_named(words[1]);
	if (is_swap && !places[1]) errno = EINVAL, die("SWAP needs two places");
	long wanted = atol(words[0]), count = 0;
	char paths[2][2 * PATH_MAX];
	int listener = received(channel), status = 0, has_ended = 0;
	pid_t others = 0;
	for (;;) {
		struct pollfd waiting = {listener, POLLIN, 0};
		poll(&waiting, 1, has_ended ? -1 : 20);
		if (!has_ended && waitpid(child, &status, WNOHANG) == child) {
			has_ended = 1;
			poll(&waiting, 1, 0);
			if (!(waiting.revents & (POLLHUP | POLLERR))) {
				/* Others outlive it: somebody has to answer them, and nobody to wait for them. */
				others = fork();
				if (others < 0) die("fork");
				if (!others) close_range(0, listener - 1, 0), close_range(listener + 1, ~0U, 0);
			}
			if (others || waiting.revents & (POLLHUP | POLLERR)) {
				close(listener);
				return status;
			}
		}
		if (!(waiting.revents & POLLIN)) {
			if (has_ended && waiting.revents & (POLLHUP | POLLERR)) _exit(0);
			continue;
		}
		struct seccomp_notif asked;
		memset(&asked, 0, sizeof asked);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked)) continue; /* it has died meanwhile */
		struct seccomp_notif_resp answer = {.id = asked.id,
											.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
		int is_ours = (pid_t)asked.pid == child;
		if (is_creating && !(asked.data.args[2] & O_CREAT)) is_ours = 0;
		if (is_ours && places[0]) {
			paths_of(&asked, paths);
			is_ours = counts(paths, places);
		}
		if (is_ours) {
			count++;
			int is_first = count == wanted, swapped = 0;
			if (is_swap && (is_first || (is_flash && count == wanted + 1))) swapped = swap(places);
			if (is_first) {
				if (!places[0]) paths_of(&asked, paths);
				FILE *seen = fopen(seen_at, "ae");
				if (!seen) die(seen_at);
				fputs(swapped ? "swapped\n" : is_swap ? "" : paths[0], seen);
				if (fclose(seen)) die(seen_at);
				if (is_kill) {
					kill(child, SIGKILL);
					continue;
				}
				if (error) answer.flags = 0, answer.error = -error;
			}
		}
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
}

int main(int argc, char **argv) {
	if (argc < 7) {
		fprintf(stderr, "inject CALLS NUMBER ACTION SEEN PLACES PROGRAM ...\n");
		return 125;
	}
	int channel[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel)) die("socketpair");
	pid_t supervisor = getpid(), child = fork();
	if (child < 0) die("fork");
	if (!child) {
		be_supervised(channel[1], supervisor, argv[1]);
		execv(argv[6], argv + 6);
		die(argv[6]);
	}
	close(channel[1]);
	int status = supervise(channel[0], child, argv + 2);
	if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
	kill(getpid(), WTERMSIG(status));
	return 128 + WTERMSIG(status); /* the first of a namespace can't kill itself */
}
