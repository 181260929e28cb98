BEGIN TRANSACTION;
PRAGMA application_id = 1380270416;
PRAGMA user_version = 1;
CREATE TABLE act (
            id INTEGER PRIMARY KEY,
            sweep INTEGER NOT NULL REFERENCES sweep (id) ON DELETE CASCADE,
            endpoint TEXT NOT NULL,
            provider TEXT NOT NULL,
            kind TEXT NOT NULL,
            resource TEXT NOT NULL,
            name TEXT NOT NULL,
            labels TEXT,
            labels_cut INTEGER NOT NULL,
            image TEXT,
            "group" TEXT,
            state TEXT NOT NULL,
            raw_state TEXT NOT NULL,
            created_at TEXT,
            owner TEXT,
            policy TEXT,
            reason TEXT NOT NULL,
            sentence TEXT NOT NULL,
            since TEXT,
            decided_at TEXT NOT NULL,
            outcome TEXT NOT NULL,
            detail TEXT NOT NULL,
            error TEXT,
            attempts INTEGER NOT NULL,
            seconds REAL NOT NULL,
            ended_at TEXT
        );
INSERT INTO "act" VALUES(1,1,'local','docker','container','id-chess','chess','{"harbor.managed": "true"}',0,'hb__task','trial','stopped','exited','2026-11-19T12:00:00.000000Z','preset harbor','stopped-containers','stopped_for','stopped 2 d ago, policy stopped-containers allows 6 h','2026-11-20T12:00:00.000000Z','2026-11-21T12:00:00.000000Z','deleted','',NULL,1,0.5,'2026-11-21T12:00:00.000000Z');
INSERT INTO "act" VALUES(2,2,'gpu-1','docker','container','id-go','go','{"harbor.managed": "true"}',0,'hb__task','trial','stopped','exited','2026-11-19T12:00:00.000000Z','preset harbor','stopped-containers','stopped_for','stopped 2 d ago, policy stopped-containers allows 6 h','2026-11-20T12:00:00.000000Z','2026-11-21T13:00:00.000000Z','failed','',NULL,1,0.5,'2026-11-21T13:00:00.000000Z');
INSERT INTO "act" VALUES(3,3,'local','docker','container','id-chess-2','chess-2','{"harbor.managed": "true"}',0,'hb__task','trial','stopped','exited','2026-11-19T12:00:00.000000Z','preset harbor','stopped-containers','stopped_for','stopped 2 d ago, policy stopped-containers allows 6 h','2026-11-20T12:00:00.000000Z','2026-11-21T14:00:00.000000Z','gone','',NULL,1,0.5,'2026-11-21T14:00:00.000000Z');
INSERT INTO "act" VALUES(4,4,'local','docker','container','id-shogi','shogi','{"harbor.managed": "true"}',0,'hb__task','trial','stopped','exited','2026-11-19T12:00:00.000000Z','preset harbor','stopped-containers','stopped_for','stopped 2 d ago, policy stopped-containers allows 6 h','2026-11-20T12:00:00.000000Z','2026-11-21T15:00:00.000000Z','skipped','',NULL,1,0.5,'2026-11-21T15:00:00.000000Z');
CREATE TABLE gap (began_at TEXT NOT NULL, ended_at TEXT NOT NULL, sweeps INTEGER, acts INTEGER, why TEXT NOT NULL);
CREATE TABLE sweep (
            id INTEGER PRIMARY KEY,
            endpoint TEXT NOT NULL,
            provider TEXT NOT NULL,
            host TEXT NOT NULL,
            pid INTEGER NOT NULL,
            token INTEGER NOT NULL,
            version TEXT NOT NULL,
            due TEXT,
            at TEXT NOT NULL,
            ended_at TEXT,
            seconds REAL,
            held INTEGER,
            reapable INTEGER,
            counts TEXT,
            cap TEXT,
            failure TEXT,
            message TEXT
        );
INSERT INTO "sweep" VALUES(1,'local','docker','vm',10600,2259166476871266537,'0.1.0',NULL,'2026-11-21T12:00:00.000000Z','2026-11-21T12:00:00.000000Z',1.5,1,1,'{"deleted": 1}',NULL,NULL,NULL);
INSERT INTO "sweep" VALUES(2,'gpu-1','docker','vm',10600,2259166476871266537,'0.1.0',NULL,'2026-11-21T13:00:00.000000Z','2026-11-21T13:00:00.000000Z',1.5,1,1,'{"failed": 1}',NULL,NULL,NULL);
INSERT INTO "sweep" VALUES(3,'local','docker','vm',10600,2259166476871266537,'0.1.0',NULL,'2026-11-21T14:00:00.000000Z','2026-11-21T14:00:00.000000Z',1.5,1,1,'{"gone": 1}',NULL,NULL,NULL);
INSERT INTO "sweep" VALUES(4,'local','docker','vm',10600,2259166476871266537,'0.1.0',NULL,'2026-11-21T15:00:00.000000Z','2026-11-21T15:00:00.000000Z',1.5,1,1,'{"skipped": 1}',NULL,NULL,NULL);
CREATE INDEX sweep_at ON sweep (at);
CREATE INDEX sweep_open ON sweep (endpoint) WHERE ended_at IS NULL;
CREATE INDEX act_sweep ON act (sweep);
CREATE INDEX act_decided_at ON act (decided_at);
COMMIT;
