/* Run a program and have its n-th system call of a name fail, or kill it there.
 *
 *     inject CALL NUMBER ERRNO|KILL SEEN PROGRAM ...
 *
 * What strace --inject does to one thread, without stopping it at all its other calls: seccomp
 * hands over those of one name alone, and those of the program's first thread are counted. The file SEEN is there when it came so far. Ends as the program ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
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

#define CALL(name) {#name, SYS_##name}
static const struct { const char *name; int number; } calls[] = {
	CALL(openat), CALL(newfstatat), CALL(readlinkat), CALL(getdents64), CALL(statfs),
	CALL(fstatfs), CALL(read), CALL(readv), CALL(pread64), CALL(write), CALL(writev), CALL(pwrite64),
	CALL(fsync), CALL(fdatasync), CALL(flock), CALL(mkdirat), CALL(renameat), CALL(renameat2),
	CALL(linkat), CALL(symlinkat), CALL(unlinkat), CALL(fchmod), CALL(fchmodat), CALL(fchown),
	CALL(fchownat), CALL(utimensat), CALL(ftruncate), CALL(truncate), CALL(fallocate),
	CALL(copy_file_range), CALL(sendfile), CALL(setxattr), CALL(fsetxattr), CALL(lsetxattr),
	CALL(sync), CALL(syncfs), CALL(sync_file_range),
#ifdef SYS_rename /* what only older architectures have */
	CALL(readlink), CALL(mkdir), CALL(rename), CALL(link), CALL(symlink), CALL(unlink),
	CALL(rmdir), CALL(chmod), CALL(chown), CALL(lchown),
#endif
};

static const struct { const char *name; int number; } errors[] = {
	{"EACCES", EACCES}, {"EMFILE", EMFILE}, {"EIO", EIO},       {"ENFILE", ENFILE},
	{"EPERM", EPERM},   {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"ENOLCK", ENOLCK},
	{"EROFS", EROFS},   {"EMLINK", EMLINK}, {"EINTR", EINTR},
};

static void die(const char *what) {
	fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
	exit(125);
}

static int call_named(const char *name) {
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(calls[i].name, name)) return calls[i].number;
	errno = EINVAL;
	die(name);
	return -1;
}

static int error_named(const char *name) {
	if (!strcmp(name, "KILL")) return 0;
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
		if (!strcmp(errors[i].name, name)) return errors[i].number;
	errno = EINVAL;
	die(name);
	return -1;
}

static int listener_for(int call) {
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
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

int main(int argc, char **argv) {
	if (argc < 6) {
		fprintf(stderr, "inject CALL NUMBER ERRNO|KILL SEEN PROGRAM ...\n");
		return 125;
	}
	int call = call_named(argv[1]), error = error_named(argv[3]);
	long wanted = atol(argv[2]), count = 0;
	int channel[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel)) die("socketpair");
	pid_t child = fork();
	if (child < 0) die("fork");
	if (!child) {
		int listener = listener_for(call);
		send_over(channel[1], listener);
		/* The supervisor answers from now on; what we close here is not ours to close in it. */
		fcntl(listener, F_SETFD, FD_CLOEXEC);
		execv(argv[5], argv + 5);
		die(argv[5]);
	}
	close(channel[1]);
	int listener = received(channel[0]), status = 0, has_ended = 0;
	for (;;) {
		struct pollfd waiting = {listener, POLLIN, 0};
		poll(&waiting, 1, has_ended ? -1 : 20);
		if (!has_ended && waitpid(child, &status, WNOHANG) == child) {
			has_ended = 1;
			/* Others may outlive it: somebody has to answer them, and nobody to wait for them. */
			pid_t answering = fork();
			if (answering < 0) die("fork");
			if (answering) {
				if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
				kill(getpid(), WTERMSIG(status));
				return 128 + WTERMSIG(status); /* the first of a namespace can't kill itself */
			}
			for (int descriptor = 0; descriptor < 3; descriptor++) close(descriptor);
		}
		if (!(waiting.revents & POLLIN)) {
			if (has_ended && waiting.revents & (POLLHUP | POLLERR)) return 0;
			continue;
		}
		struct seccomp_notif asked;
		memset(&asked, 0, sizeof asked);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked)) continue; /* it has died meanwhile */
		struct seccomp_notif_resp answer = {.id = asked.id,
											.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
		if ((pid_t)asked.pid == child && ++count == wanted) {
			int seen = open(argv[4], O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
			if (seen < 0) die(argv[4]);
			close(seen);
			if (!error) {
				kill(child, SIGKILL);
				continue;
			}
			answer.flags = 0;
			answer.error = -error;
		}
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
}
