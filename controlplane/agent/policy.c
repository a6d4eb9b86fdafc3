/* SPDX-License-Identifier: GPL-3.0-or-later */
/* policy: one text, both planes, or neither.
 *   compile > dataplane prepares > kernel plane commits (atomic) > trust records follow > dataplane commits
 * Whatever fails before the kernel's commit leaves the old policy in both. After it, a dataplane that cannot follow is
 * cut off, and one that comes back is given the policy in force. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include "config/base/clock.h"
#include "controlplane/agent/agent.h"

#define PREPARE_MS 5000

struct policy_job {
	STAILQ_ENTRY(policy_job) next;
	struct agent *a;
	char *text, *file;
	bool decided;
	struct segments *segments;
	struct policy_form *form;
	policy_done *done;
	void *arg;
};

static void job_start(struct policy_job *j);

static void job_free(struct policy_job *j)
{
	segments_free(j->segments);
	free(j->form);
	free(j->text);
	free(j->file);
	free(j);
}

static void job_end(struct policy_job *j, int result, const char *text,
		    const struct enforcement *closed)
{
	struct agent *a = j->a;

	if (result < 0)
		log_error("policy %s refused, the one in force stays: %s", j->file, text);
	STAILQ_REMOVE_HEAD(&a->policy_jobs, next);
	j->done(j->arg, result, text, closed);
	job_free(j);
	if (!STAILQ_EMPTY(&a->policy_jobs))
		job_start(STAILQ_FIRST(&a->policy_jobs));
}

int policy_memfd(const struct policy_form *f)
{
	int fd = memfd_create("sallyport-policy", MFD_CLOEXEC | MFD_ALLOW_SEALING), ret;

	if (fd < 0)
		return -errno;
	for (uint32_t at = 0; at < f->bytes;) {
		ssize_t n = write(fd, (const char *)f + at, f->bytes - at);

		if (n <= 0) {
			ret = n < 0 ? -errno : -EIO;
			close(fd);
			return ret;
		}
		at += n;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

static uint64_t epoch_next(struct agent *a)
{
	char text[32];
	uint64_t epoch = 0;

	if (store_meta_get(a->store, "policy_epoch", text, sizeof(text)) == 0)
		epoch = strtoull(text, NULL, 10);
	if (a->form != NULL && a->form->epoch > epoch)
		epoch = a->form->epoch;
	return epoch + 1;
}

static bool same_ids(const struct policy_form *x, const struct policy_form *y)
{
	const struct policy_endpoint *a = policy_endpoints(x), *b = policy_endpoints(y);
	bool same = x->n_endpoints == y->n_endpoints;

	for (uint32_t i = 0; same && i < x->n_endpoints; i++)
		same = a[i].id == b[i].id && a[i].kind == b[i].kind &&
		       strcmp(a[i].name, b[i].name) == 0;
	return same;
}

static int remember_ids(struct agent *a, const struct policy_form *f, struct err *err)
{
	const struct policy_endpoint *ep = policy_endpoints(f);
	struct store_policy_id *ids;
	int ret;

	if (a->ids_stored && same_ids(a->form, f))
		return 0;
	ids = calloc(f->n_endpoints + 1, sizeof(*ids));
	if (ids == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->n_endpoints; i++) {
		memcpy(ids[i].name, ep[i].name, sizeof(ids[i].name));
		ids[i].id = ep[i].id;
	}
	a->ids_stored =
		false; /* until take(): this policy may yet fail, and the store has its ids then */
	ret = store_policy_ids_set(a->store, ids, f->n_endpoints, err);
	free(ids);
	return ret;
}

/* What must survive a restart so that names keep their ids and epochs grow. */
static int remember(struct agent *a, const struct policy_form *f, struct err *err)
{
	char text[32];
	int ret = remember_ids(a, f, err);

	if (ret < 0)
		return ret;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)f->epoch);
	return store_meta_put(a->store, "policy_epoch", text, err);
}

static int compile(struct agent *a, const char *text, const char *file,
		   const struct policy_form *prev, struct segments **segs,
		   struct policy_form **form, struct config_errors *errs, struct err *err)
{
	wc_Sha256 sha;
	int ret = segments_parse(segs, text, file, errs);

	if (ret < 0) {
		if (errs->n > 0)
			err_set(err, ret, "%s%s", errs->line[0], errs->n > 1 ? " (and more)" : "");
		else
			err_set(err, ret, "%s", strerror(-ret));
		return ret;
	}
	wc_InitSha256(&sha);
	wc_Sha256Update(&sha, (const byte *)text, strlen(text));
	wc_Sha256Final(&sha, (*segs)->sha256);
	wc_Sha256Free(&sha);
	return policy_compile(form, *segs, epoch_next(a), prev, err);
}

/* What a policy in place of the one in force means for devices. A name with another id is another segment. */
static enum segments_change change_of(const struct agent *a, const struct segments *segs,
				      const struct policy_form *form)
{
	return a->segments == NULL || !same_ids(a->form, form)
		       ? SEGMENTS_MEMBERS
		       : segments_compare(a->segments, segs);
}

/* May the members of a segment reach a listener's upstream by the one and not by the other? Ids are the same in both. */
static bool relays_change(const struct agent *a, const struct policy_form *was,
			  const struct policy_form *is)
{
	const struct policy_endpoint *ep = policy_endpoints(is);

	for (uint32_t i = 0; i < is->n_endpoints; i++) {
		for (uint32_t k = 0; k < a->cfg->n_listeners; k++) {
			if (enforce_relay_by(a, was, ep[i].id, (uint8_t)k) !=
			    enforce_relay_by(a, is, ep[i].id, (uint8_t)k))
				return true;
		}
	}
	return false;
}

/* Both planes hold it: from here on it is the policy. Devices are judged again only where it says anything new about
 * them: judgements that end by themselves are due at their own time. */
static void take(struct agent *a, struct segments **segs, struct policy_form **form, bool decided)
{
	enum segments_change change = change_of(a, *segs, *form);

	a->review |= change != SEGMENTS_SAME || relays_change(a, a->form, *form);
	segments_free(a->segments);
	free(a->form);
	a->segments = *segs;
	a->form = *form;
	a->ids_stored = true;
	a->policy_decided = decided;
	*segs = NULL;
	*form = NULL;
	for (uint32_t i = 0; change == SEGMENTS_MEMBERS && i < registry_devices(a->registry); i++)
		registry_device(a->registry, i)->home = DEVICE_HOME_UNKNOWN;
	if (change != SEGMENTS_SAME)
		registry_touch_all(a->registry);
	trust_writer_epoch(&a->trust, a->form->epoch);
}

static void job_closed(void *arg, struct enforcement *e)
{
	struct policy_job *j = arg;
	char text[64];

	snprintf(text, sizeof(text), "policy epoch %llu", (unsigned long long)j->a->form->epoch);
	log_info("%s in force file=%s sessions_closed=%llu flows_closed=%llu", text, j->file,
		 (unsigned long long)e->sessions_closed, (unsigned long long)e->flows_closed);
	job_end(j, 0, text, e);
	free(e);
}

static void job_committed(void *arg, const union msg_any *reply)
{
	struct policy_job *j = arg;
	struct enforcement *e;

	struct peer *dp = peers_dataplane(j->a->peers);
	bool failed = dp != NULL && j->a->dp_ready && (reply == NULL || reply->h.type != MSG_OK);

	/* One that is gone is given the policy when it joins; one that is there must not go on with the old one. */
	if (failed) {
		agent_alarm(j->a, "dataplane", "policy epoch %llu is not in force there: %s",
			    (unsigned long long)j->a->form->epoch,
			    reply != NULL && reply->h.type == MSG_ERROR ? reply->result.text
									: "no answer");
		peer_cut(dp, "did not commit the policy");
	}
	e = enforcement_new(j->a, job_closed, j);
	if (e == NULL) {
		job_end(j, 0, "in force; what it closed could not be counted", NULL);
		return;
	}
	/* Flows that the new policy forbids: idle ones end now. */
	e->all = true;
	e->untracked += failed;
	enforce_run(e);
}

/* A device's elements as the policy of `j` judges it, while the agent's is that one. Its judgement stays as it is. */
static int kernel_judge(struct agent *a, struct device *dev)
{
	uint64_t now = clock_boot_ms();
	struct evidence ev = enforce_evidence(a, dev, now);
	struct judgement was = dev->judged;
	int ret = 0;

	dev->judged = decide(&ev, segments_match(a->segments, dev->kind, dev->identity),
			     a->segments, now);
	for (struct binding *b = LIST_FIRST(&a->bound[dev->slot]); ret == 0 && b != NULL;
	     b = LIST_NEXT(b, of_device)) {
		struct nft_binding nb;

		ret = binding_nft(a, b, &nb) ? nft_put_binding(a->nft, &nb)
					     : nft_del_binding(a->nft, &b->ip);
	}
	dev->judged = was;
	return ret;
}

/* Devices as the new policy judges them, in the same transaction as the policy. Records are not written yet. */
static int kernel_commit(struct policy_job *j, struct err *err)
{
	struct agent *a = j->a;
	struct segments *old_segs = a->segments;
	struct policy_form *old_form = a->form;
	bool same = change_of(a, j->segments, j->form) == SEGMENTS_SAME;
	int ret = nft_begin(a->nft);

	if (ret < 0)
		return err_set(err, ret, "kernel plane is busy");
	ret = nft_put_policy(a->nft, j->form);
	/* binding_nft() reads the policy from the agent */
	a->segments = j->segments;
	a->form = j->form;
	for (uint32_t i = 0; !same && ret == 0 && i < registry_devices(a->registry); i++)
		ret = kernel_judge(a, registry_device(a->registry, i));
	a->segments = old_segs;
	a->form = old_form;
	if (ret < 0) {
		nft_abort(a->nft);
		return err_set(err, ret, "kernel plane: %s", strerror(-ret));
	}
	ret = nft_commit(a->nft, err);
	return ret < 0 ? err_wrap(err, ret, "kernel plane") : 0;
}

static void job_prepared(void *arg, const union msg_any *reply)
{
	struct policy_job *j = arg;
	struct agent *a = j->a;
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct msg_policy m = {.epoch = j->form->epoch};
	struct err err = {""};
	int ret;

	if (reply != NULL && reply->h.type == MSG_ERROR) {
		job_end(j, -EINVAL, reply->result.text, NULL);
		return;
	}
	/* No answer: if the dataplane is gone it will get the policy when it joins; if it hangs, neither plane changes. */
	if (reply == NULL && dp != NULL) {
		job_end(j, -ETIMEDOUT, "the dataplane does not answer", NULL);
		return;
	}
	ret = remember(a, j->form, &err);
	if (ret == 0)
		ret = kernel_commit(j, &err);
	if (ret < 0) {
		MSG_INIT(&m, MSG_POLICY_ABORT, 0);
		if (dp != NULL)
			peer_send(dp, &m, -1);
		job_end(j, ret, err.msg, NULL);
		return;
	}
	take(a, &j->segments, &j->form, j->decided);
	/* Records before the dataplane's commit: whoever moves must not meet the new rules in its old segment. Ids of
	 * segments that are new mean nothing in the old policy (policy_compile()), and pass nothing there. */
	enforce_dirty(a, NULL);
	MSG_INIT(&m, MSG_POLICY_COMMIT, 0);
	if (dp != NULL)
		peer_request(dp, &m, -1, PREPARE_MS, job_committed, j);
	else
		job_committed(j, NULL);
}

static void job_start(struct policy_job *j)
{
	struct agent *a = j->a;
	struct peer *dp = a->dp_ready ? peers_dataplane(a->peers) : NULL;
	struct config_errors *errs = calloc(1, sizeof(*errs));
	struct msg_policy m = {0};
	struct err err = {""};
	int ret = -ENOMEM, fd;

	if (errs != NULL)
		ret = compile(a, j->text, j->file, a->form, &j->segments, &j->form, errs, &err);
	free(errs);
	if (ret < 0) {
		job_end(j, ret, err.msg[0] != '\0' ? err.msg : strerror(-ret), NULL);
		return;
	}
	if (dp == NULL) {
		job_prepared(j, NULL);
		return;
	}
	fd = policy_memfd(j->form);
	if (fd < 0) {
		job_end(j, fd, strerror(-fd), NULL);
		return;
	}
	m.epoch = j->form->epoch;
	MSG_INIT(&m, MSG_POLICY_PREPARE, 0);
	peer_request(dp, &m, fd, PREPARE_MS, job_prepared, j);
	close(fd);
}

void policy_apply(struct agent *a, const char *text, const char *file, bool decided,
		  policy_done *done, void *arg)
{
	struct policy_job *j = calloc(1, sizeof(*j));
	bool idle = STAILQ_EMPTY(&a->policy_jobs);

	if (j != NULL) {
		j->text = strdup(text);
		j->file = strdup(file);
	}
	if (j == NULL || j->text == NULL || j->file == NULL) {
		if (j != NULL)
			job_free(j);
		done(arg, -ENOMEM, "out of memory", NULL);
		return;
	}
	j->a = a;
	j->decided = decided;
	j->done = done;
	j->arg = arg;
	STAILQ_INSERT_TAIL(&a->policy_jobs, j, next);
	if (idle)
		job_start(j);
}

struct ids {
	struct policy_endpoint *ep;
	uint32_t n;
};

static int ids_one(void *arg, const struct store_policy_id *id)
{
	struct ids *x = arg;
	struct policy_endpoint *more = realloc(x->ep, (x->n + 1) * sizeof(*more));

	if (more == NULL)
		return -ENOMEM;
	x->ep = more;
	more[x->n] = (struct policy_endpoint){.id = id->id, .kind = ENDPOINT_SEGMENT};
	memcpy(more[x->n].name, id->name, sizeof(more[x->n].name));
	x->n++;
	return 0;
}

/* A form of nothing but the names and ids of the last run, for policy_compile() to keep them. */
static struct policy_form *form_of_ids(struct agent *a)
{
	struct ids x = {0};
	struct policy_form *f = NULL;

	if (store_policy_ids(a->store, ids_one, &x, NULL) == 0)
		f = calloc(1, sizeof(*f) + x.n * sizeof(*x.ep));
	if (f != NULL) {
		f->n_endpoints = x.n;
		f->off_endpoints = sizeof(*f);
		if (x.n > 0)
			memcpy((char *)f + sizeof(*f), x.ep, x.n * sizeof(*x.ep));
	}
	free(x.ep);
	return f;
}

int policy_first(struct agent *a, const char *text, const char *file, bool decided,
		 struct config_errors *errs, struct err *err)
{
	struct policy_form *ids = form_of_ids(a), *form = NULL;
	struct segments *segs = NULL;
	int ret = compile(a, text, file, ids, &segs, &form, errs, err);

	free(ids);
	if (ret == 0)
		ret = remember(a, form, err);
	if (ret < 0) {
		segments_free(segs);
		free(form);
		return ret;
	}
	take(a, &segs, &form, decided);
	return 0;
}
