/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "controlplane/api_server.h"

struct world {
	char path[64];
	struct api_server *server;
	struct api_call *kept; /* of "keep" */
	uint64_t now_ms;
	unsigned handled;
};

static void handle(void *arg, struct api_call *call, const char *cmd, json_t *request)
{
	struct world *w = arg;

	w->handled++;
	if (strcmp(cmd, "keep") == 0) {
		assert_null(w->kept);
		w->kept = call;
	} else if (strcmp(cmd, "big") == 0) {
		char *text = calloc(1, 3000001);

		memset(text, 'b', 3000000);
		api_reply(call, json_pack("{s:s}", "text", text));
		free(text);
	} else if (strcmp(cmd, "echo") == 0) {
		api_reply(call, json_pack("{s:O}", "n", json_object_get(request, "n")));
	} else {
		api_fail(call, "not_found", "no %s", cmd);
	}
}

static int connect_client(struct world *w)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(sa.sun_path, w->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

static void turn(struct world *w)
{
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(api_server_dispatch(w->server, w->now_ms), 0);
}

static void say(struct world *w, int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	turn(w);
}

/* What there is to read now; "" is nothing, "(end)" the end. */
static const char *hear(int fd)
{
	static char text[4096];
	ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

	if (n == 0 || (n < 0 && errno != EAGAIN))
		return "(end)";
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err err = {0};

	snprintf(w->path, sizeof(w->path), "/tmp/sallyport-api-%d.sock", getpid());
	if (api_server_new(&w->server, w->path, handle, w, &err) != 0)
		fail_msg("%s", err.msg);
	w->now_ms = 1000000;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	struct stat st;

	api_server_free(w->server);
	assert_int_equal(lstat(w->path, &st), -1);
	free(w);
	return 0;
}

static void each_line_gets_its_answer(void **state)
{
	static const struct {
		const char *name, *say, *want;
	} rows[] = {
		{"request", "{\"cmd\":\"echo\",\"n\":5}\n", "{\"n\":5,\"ok\":true}\n"},
		{"refusal", "{\"cmd\":\"x\"}\n",
		 "{\"ok\":false,\"error\":\"no x\",\"code\":\"not_found\"}\n"},
		{"two in one", "{\"cmd\":\"echo\",\"n\":1}\n{\"cmd\":\"echo\",\"n\":2}\n",
		 "{\"n\":1,\"ok\":true}\n{\"n\":2,\"ok\":true}\n"},
		{"empty lines", "\n\n{\"cmd\":\"echo\",\"n\":1}\n", "{\"n\":1,\"ok\":true}\n"},
		{"half a line", "{\"cmd\":\"echo\",", ""},
		{"the other half", "\"n\":3}\n", "{\"n\":3,\"ok\":true}\n"},
		{"not an object", "[1]\n",
		 "{\"ok\":false,\"error\":\"not an object with a "
		 "\\\"cmd\\\"\",\"code\":\"invalid\"}\n"},
		{"no cmd", "{\"n\":1}\n",
		 "{\"ok\":false,\"error\":\"not an object with a "
		 "\\\"cmd\\\"\",\"code\":\"invalid\"}\n"},
		{"cmd is no text", "{\"cmd\":1}\n",
		 "{\"ok\":false,\"error\":\"not an object with a "
		 "\\\"cmd\\\"\",\"code\":\"invalid\"}\n"},
	};
	static const char *const not_json[] = {"xyz\n", "{\"cmd\":\"a\",\"cmd\":\"b\"}\n",
					       "{\"cmd\":\"\xff\"}\n", "{\"cmd\":\"a\"} x\n"};
	struct world *w = *state;
	int fd = connect_client(w);

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *got;

		say(w, fd, rows[i].say);
		got = hear(fd);
		if (strcmp(got, rows[i].want) != 0)
			fail_msg("%s: %s", rows[i].name, got);
	}
	for (size_t i = 0; i < sizeof(not_json) / sizeof(not_json[0]); i++) {
		say(w, fd, not_json[i]);
		assert_non_null(strstr(hear(fd), "\"not JSON: "));
	}
	close(fd);
}

static void a_later_answer_holds_back_the_next_request(void **state)
{
	struct world *w = *state;
	int fd = connect_client(w);

	say(w, fd, "{\"cmd\":\"keep\"}\n{\"cmd\":\"echo\",\"n\":1}\n");
	assert_int_equal(w->handled, 1);
	assert_string_equal(hear(fd), "");
	api_reply(w->kept, json_object());
	turn(w);
	assert_int_equal(w->handled, 2);
	assert_string_equal(hear(fd), "{\"ok\":true}\n{\"n\":1,\"ok\":true}\n");
	close(fd);
	turn(w);
}

static void a_client_that_leaves_does_not_take_the_call_with_it(void **state)
{
	struct world *w = *state;
	int fd = connect_client(w);

	say(w, fd, "{\"cmd\":\"keep\"}\n");
	close(fd);
	turn(w);
	api_reply(w->kept, json_object()); /* into the void */
	w->kept = NULL;
	fd = connect_client(w);
	say(w, fd, "{\"cmd\":\"keep\"}\n");
	api_server_free(w->server); /* the server goes first */
	w->server = NULL;
	api_fail(w->kept, "unavailable", "gone");
	assert_string_equal(hear(fd), "(end)");
	close(fd);
}

static void no_answer_in_time_is_said_so(void **state)
{
	struct world *w = *state;
	int fd = connect_client(w);

	say(w, fd, "{\"cmd\":\"keep\"}\n");
	w->now_ms += API_DEADLINE_MS - 1;
	api_server_tick(w->server, w->now_ms);
	assert_string_equal(hear(fd), "");
	w->now_ms++;
	api_server_tick(w->server, w->now_ms);
	assert_string_equal(
		hear(fd), "{\"ok\":false,\"error\":\"no answer in time\",\"code\":\"timeout\"}\n");
	say(w, fd, "{\"cmd\":\"echo\",\"n\":1}\n");
	assert_string_equal(hear(fd), "{\"n\":1,\"ok\":true}\n");
	api_reply(w->kept, json_object());
	turn(w);
	assert_string_equal(hear(fd), "");
	w->now_ms += API_IDLE_MS;
	api_server_tick(w->server, w->now_ms);
	assert_string_equal(hear(fd), "(end)");
	close(fd);
}

static void a_request_without_end_is_cut_off(void **state)
{
	static char line[65536];
	struct world *w = *state;
	int fd = connect_client(w);
	size_t sent = 0;

	memset(line, 'x', sizeof(line));
	while (sent < API_REQUEST_BYTES) {
		ssize_t n = send(fd, line, sizeof(line), MSG_NOSIGNAL);

		if (n > 0)
			sent += (size_t)n;
		turn(w);
	}
	assert_string_equal(
		hear(fd),
		"{\"ok\":false,\"error\":\"the request is too long\",\"code\":\"invalid\"}\n");
	assert_string_equal(hear(fd), "(end)");
	close(fd);
}

static void a_slow_reader_gets_all_of_a_long_answer(void **state)
{
	struct world *w = *state;
	int fd = connect_client(w);
	size_t got = 0;

	say(w, fd, "{\"cmd\":\"big\"}\n{\"cmd\":\"echo\",\"n\":1}\n");
	for (unsigned i = 0; i < 100000 && got < 3000000 + 23 + 18; i++) {
		const char *text = hear(fd);

		assert_string_not_equal(text, "(end)");
		got += strlen(text);
		turn(w);
	}
	assert_int_equal(got,
			 strlen("{\"text\":\"\",\"ok\":true}\n{\"n\":1,\"ok\":true}\n") + 3000000);
	close(fd);
}

static void there_is_room_for_so_many_clients(void **state)
{
	struct world *w = *state;
	int fd[API_CLIENTS_MAX], more;

	for (unsigned i = 0; i < API_CLIENTS_MAX; i++) {
		fd[i] = connect_client(w);
		turn(w);
	}
	more = connect_client(w);
	turn(w);
	assert_non_null(strstr(hear(more), "too many clients"));
	close(more);
	close(fd[7]);
	turn(w);
	more = connect_client(w);
	say(w, more, "{\"cmd\":\"echo\",\"n\":1}\n");
	assert_string_equal(hear(more), "{\"n\":1,\"ok\":true}\n");
	close(more);
	for (unsigned i = 0; i < API_CLIENTS_MAX; i++) {
		if (i != 7)
			close(fd[i]);
	}
	turn(w);
}

static void the_socket_is_private_and_taken_only_when_free(void **state)
{
	struct world *w = *state;
	struct api_server *second = NULL;
	struct stat st;
	struct err err = {0};
	char path[80];
	int fd;

	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(api_server_new(&second, w->path, handle, w, &err), -EADDRINUSE);
	snprintf(path, sizeof(path), "%s.file", w->path);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_int_equal(api_server_new(&second, path, handle, w, &err), -EEXIST);
	assert_int_equal(stat(path, &st), 0);
	unlink(path);
	assert_null(second);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(each_line_gets_its_answer),
		T(a_later_answer_holds_back_the_next_request),
		T(a_client_that_leaves_does_not_take_the_call_with_it),
		T(no_answer_in_time_is_said_so),
		T(a_request_without_end_is_cut_off),
		T(a_slow_reader_gets_all_of_a_long_answer),
		T(there_is_room_for_so_many_clients),
		T(the_socket_is_private_and_taken_only_when_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
