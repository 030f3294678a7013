package firecracker

import (
	"context"
	"fmt"
)

// failpoint names a stage boundary: the work named by it is done, the next has
// not begun.
type failpoint string

// All stage boundaries. A verb can be failed or killed at each.
const (
	fpCreateReserved   failpoint = "create.reserved"
	fpCreateStaged     failpoint = "create.staged"
	fpCreateSpawned    failpoint = "create.spawned"
	fpCreateConfigured failpoint = "create.configured"
	fpCreateLoaded     failpoint = "create.loaded"
	fpCreateResumed    failpoint = "create.resumed"
	fpCreateSaved      failpoint = "create.saved"

	fpStartIntended   failpoint = "start.intended"
	fpStartSpawned    failpoint = "start.spawned"
	fpStartConfigured failpoint = "start.configured"
	fpStartLoaded     failpoint = "start.loaded"
	fpStartResumed    failpoint = "start.resumed"
	fpStartSaved      failpoint = "start.saved"

	fpStopIntended   failpoint = "stop.intended"
	fpStopPaused     failpoint = "stop.paused"
	fpStopWritten    failpoint = "stop.written"
	fpStopHibernated failpoint = "stop.hibernated"
	fpStopEnded      failpoint = "stop.ended"
	fpStopSaved      failpoint = "stop.saved"

	fpSnapshotIntended  failpoint = "snapshot.intended"
	fpSnapshotPaused    failpoint = "snapshot.paused"
	fpSnapshotWritten   failpoint = "snapshot.written"
	fpSnapshotCloned    failpoint = "snapshot.cloned"
	fpSnapshotResumed   failpoint = "snapshot.resumed"
	fpSnapshotComposed  failpoint = "snapshot.composed"
	fpSnapshotPublished failpoint = "snapshot.published"
	fpSnapshotDeleted   failpoint = "snapshot.deleted"

	fpDestroyIntended failpoint = "destroy.intended"
	fpDestroyKilled   failpoint = "destroy.killed"
	fpDestroyCleaned  failpoint = "destroy.cleaned"
	fpDestroySaved    failpoint = "destroy.saved"

	// Wherever a VMM is started.
	fpNetworkJoined failpoint = "network.joined"

	fpEgressIntended failpoint = "egress.intended"
	fpEgressSaved    failpoint = "egress.saved"
	fpEgressApplied  failpoint = "egress.applied"

	fpRenameIntended failpoint = "rename.intended"
	fpRenameRenamed  failpoint = "rename.renamed"
	fpRenameSaved    failpoint = "rename.saved"
)

// fail runs the failpoint that a test has set.
func (r *Runtime) fail(ctx context.Context, fp failpoint) error {
	if r.cfg.failpoint == nil {
		return nil
	}
	if err := r.cfg.failpoint(ctx, string(fp)); err != nil {
		return fmt.Errorf("failpoint %s: %w", fp, err)
	}
	return nil
}
