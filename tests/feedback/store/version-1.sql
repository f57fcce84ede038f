BEGIN TRANSACTION;
CREATE TABLE annotators (
	name VARCHAR(255) NOT NULL,
	kind VARCHAR(255) NOT NULL,
	"group" VARCHAR(255),
	domains JSON NOT NULL,
	"right" FLOAT NOT NULL,
	wrong FLOAT NOT NULL,
	added_at FLOAT NOT NULL,
	PRIMARY KEY (name)
);
INSERT INTO "annotators" VALUES('anna','person','teachers','["food", "geography"]',8.0,1.0,1790000007.25);
INSERT INTO "annotators" VALUES('judge','model',NULL,'[]',0.0,0.0,1790000007.25);
INSERT INTO "annotators" VALUES('ben','person',NULL,'[]',0.0,0.0,1790000058.0);
INSERT INTO "annotators" VALUES('cleo','person',NULL,'[]',0.0,0.0,1790000087.0);
INSERT INTO "annotators" VALUES('dora','person',NULL,'[]',0.0,0.0,1790000168.75);
INSERT INTO "annotators" VALUES('emil','person',NULL,'[]',0.0,0.0,1790000197.75);
CREATE TABLE answers (
	number INTEGER NOT NULL,
	id VARCHAR(64) NOT NULL,
	task_id VARCHAR(64) NOT NULL,
	annotator VARCHAR(255) NOT NULL,
	kind VARCHAR(6) NOT NULL,
	preference FLOAT,
	"left" VARCHAR(6),
	confidence FLOAT,
	reason TEXT,
	shown_at FLOAT,
	answered_at FLOAT NOT NULL,
	attempt INTEGER NOT NULL,
	undo BOOLEAN NOT NULL,
	lease_id VARCHAR(64),
	details JSON NOT NULL,
	PRIMARY KEY (number),
	CONSTRAINT one_answer UNIQUE (task_id, annotator, attempt, undo),
	UNIQUE (id),
	FOREIGN KEY(task_id) REFERENCES tasks (id),
	FOREIGN KEY(annotator) REFERENCES annotators (name),
	FOREIGN KEY(lease_id) REFERENCES leases (id)
);
INSERT INTO "answers" VALUES(1,'anna-gold','88f6066dbc83961dd5f1f3ecd01115bb','anna','answer',1.0,'second',0.9,'Wien ist größer.',1790000014.5,1790000021.75,0,0,'ff9bc4b70a60c90087110b11d8f80699','{"page": "1"}');
INSERT INTO "answers" VALUES(2,'anna-1','b6e544ab23ed88687924de4856ebb682','anna','answer',0.5,'first',NULL,NULL,1790000029.0,1790000036.25,0,0,'8c850239566cde611e67a68a7649fa6f','{}');
INSERT INTO "answers" VALUES(3,'anna-undo','b6e544ab23ed88687924de4856ebb682','anna','undo',NULL,'first',NULL,NULL,1790000029.0,1790000043.5,0,1,'8c850239566cde611e67a68a7649fa6f','{"undoes": "anna-1"}');
INSERT INTO "answers" VALUES(4,'anna-2','b6e544ab23ed88687924de4856ebb682','anna','answer',0.0,'first',NULL,NULL,1790000043.5,1790000050.75,1,0,'7be97dd995334dc0b50e829de7e99225','{}');
INSERT INTO "answers" VALUES(5,'ben-skip','d588f7e16a01a91a0380f6fe134a32d4','ben','skip',NULL,'first',NULL,NULL,1790000058.0,1790000065.25,0,0,'2c0bcf5925d771fed7e3d90268ed6e8c','{}');
INSERT INTO "answers" VALUES(6,'ben-undo','d588f7e16a01a91a0380f6fe134a32d4','ben','undo',NULL,'first',NULL,NULL,1790000058.0,1790000072.5,0,1,'2c0bcf5925d771fed7e3d90268ed6e8c','{"undoes": "ben-skip"}');
INSERT INTO "answers" VALUES(7,'ben-1','d588f7e16a01a91a0380f6fe134a32d4','ben','answer',1.0,'first',NULL,NULL,1790000072.5,1790000079.75,1,0,'7ad8009d4b361e995d2c39ff3a4b7eca','{}');
INSERT INTO "answers" VALUES(8,'cleo-late','b6e544ab23ed88687924de4856ebb682','cleo','answer',1.0,'second',NULL,NULL,1790000087.0,1790000161.5,0,0,'94a57bf24a40cc2388b12935febc6759','{}');
INSERT INTO "answers" VALUES(9,'ben-skip-2','b89cbee78618e5f2bdcb161b8e23bf79','ben','skip',NULL,'first',NULL,NULL,1790000176.0,1790000183.25,0,0,'89c6b40fb3e58edfd84782b5325bbf18','{}');
INSERT INTO "answers" VALUES(10,'judge-1','b89cbee78618e5f2bdcb161b8e23bf79','judge','answer',0.75,NULL,0.25,NULL,NULL,1790000190.5,0,0,NULL,'{}');
CREATE TABLE leases (
	id VARCHAR(64) NOT NULL,
	task_id VARCHAR(64) NOT NULL,
	annotator VARCHAR(255) NOT NULL,
	"left" VARCHAR(6) NOT NULL,
	leased_at FLOAT NOT NULL,
	expires_at FLOAT NOT NULL,
	closed BOOLEAN NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(task_id) REFERENCES tasks (id),
	FOREIGN KEY(annotator) REFERENCES annotators (name)
);
INSERT INTO "leases" VALUES('ff9bc4b70a60c90087110b11d8f80699','88f6066dbc83961dd5f1f3ecd01115bb','anna','second',1790000014.5,1790001814.5,1);
INSERT INTO "leases" VALUES('8c850239566cde611e67a68a7649fa6f','b6e544ab23ed88687924de4856ebb682','anna','first',1790000029.0,1790001829.0,1);
INSERT INTO "leases" VALUES('7be97dd995334dc0b50e829de7e99225','b6e544ab23ed88687924de4856ebb682','anna','first',1790000043.5,1790001843.5,1);
INSERT INTO "leases" VALUES('2c0bcf5925d771fed7e3d90268ed6e8c','d588f7e16a01a91a0380f6fe134a32d4','ben','first',1790000058.0,1790001858.0,1);
INSERT INTO "leases" VALUES('7ad8009d4b361e995d2c39ff3a4b7eca','d588f7e16a01a91a0380f6fe134a32d4','ben','first',1790000072.5,1790001872.5,1);
INSERT INTO "leases" VALUES('94a57bf24a40cc2388b12935febc6759','b6e544ab23ed88687924de4856ebb682','cleo','second',1790000087.0,1790000092.0,1);
INSERT INTO "leases" VALUES('180d7460265c7410018c4d35549ff2a4','b6e544ab23ed88687924de4856ebb682','cleo','second',1790000154.25,1790001954.25,0);
INSERT INTO "leases" VALUES('91aae1256f7fc324aac1eb9bb368760c','b89cbee78618e5f2bdcb161b8e23bf79','dora','first',1790000168.75,1790086568.75,0);
INSERT INTO "leases" VALUES('89c6b40fb3e58edfd84782b5325bbf18','b89cbee78618e5f2bdcb161b8e23bf79','ben','first',1790000176.0,1790001976.0,1);
INSERT INTO "leases" VALUES('10ba7a197c4f66b8b67889fc75f2d0a9','b89cbee78618e5f2bdcb161b8e23bf79','emil','second',1790000197.75,1790001997.75,1);
CREATE TABLE meta (
	"key" VARCHAR(255) NOT NULL,
	value JSON NOT NULL,
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('version',1);
INSERT INTO "meta" VALUES('salt','"c999e71e7ea3cf56129a5eea9ee651d8"');
CREATE TABLE prompts (
	number INTEGER NOT NULL,
	id VARCHAR(64) NOT NULL,
	content JSON NOT NULL,
	pool VARCHAR(255) NOT NULL,
	domain VARCHAR(255),
	columns JSON NOT NULL,
	added_at FLOAT NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (id)
);
INSERT INTO "prompts" VALUES(1,'5034e701d45f6f875524b19ec154571a','"Name a fruit that is red."','high_value','food','{"row": 3}',1790000007.25);
INSERT INTO "prompts" VALUES(2,'2f59e9312b3d7b02e0a7d799aeee8370','[{"role": "user", "content": "Wie hei\u00dft die Hauptstadt von \u00d6sterreich?"}]','random','geography','{}',1790000007.25);
INSERT INTO "prompts" VALUES(3,'80e3e931901bee43e4e89af558012548','"Write a line of Python that prints 42.\n\n```python\n```"','adversarial','code','{}',1790000007.25);
INSERT INTO "prompts" VALUES(4,'a8f33fae6b51cc737827458c2f0daf00','"Tell me a joke. \ud83d\ude00"','random',NULL,'{}',1790000007.25);
CREATE TABLE responses (
	number INTEGER NOT NULL,
	id VARCHAR(64) NOT NULL,
	prompt_id VARCHAR(64) NOT NULL,
	content JSON NOT NULL,
	source VARCHAR(255) NOT NULL,
	settings JSON NOT NULL,
	added_at FLOAT NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (id),
	FOREIGN KEY(prompt_id) REFERENCES prompts (id)
);
INSERT INTO "responses" VALUES(1,'d323b329f4e129c541fc5894f80af6ec','5034e701d45f6f875524b19ec154571a','"Apple."','model 0','{"temperature": 0.7}',1790000007.25);
INSERT INTO "responses" VALUES(2,'e7c20eb6062166fc9b133f12fc7a3ae4','5034e701d45f6f875524b19ec154571a','"A fire engine."','model 1','{"temperature": 0.8999999999999999}',1790000007.25);
INSERT INTO "responses" VALUES(3,'e12a5ce6c9a9239304a40c1492466dc2','2f59e9312b3d7b02e0a7d799aeee8370','[{"role": "assistant", "content": "Wien."}]','model 0','{"temperature": 0.7}',1790000007.25);
INSERT INTO "responses" VALUES(4,'6303836d7e5eaeedb12f2238473cf26a','2f59e9312b3d7b02e0a7d799aeee8370','[{"role": "assistant", "content": "Graz."}]','model 1','{"temperature": 0.8999999999999999}',1790000007.25);
INSERT INTO "responses" VALUES(5,'c04586f8eea08af75b0ff59824cfb3bf','80e3e931901bee43e4e89af558012548','"print(42)"','model 0','{"temperature": 0.7}',1790000007.25);
INSERT INTO "responses" VALUES(6,'0747564a02c30f05d1952208415be9ef','80e3e931901bee43e4e89af558012548','"echo 42"','model 1','{"temperature": 0.8999999999999999}',1790000007.25);
INSERT INTO "responses" VALUES(7,'279f807485adeaccbe92589d5c9e7624','a8f33fae6b51cc737827458c2f0daf00','"Knock, knock."','model 0','{"temperature": 0.7}',1790000007.25);
INSERT INTO "responses" VALUES(8,'6c44ea439d88be1bf0d26351af3c64c7','a8f33fae6b51cc737827458c2f0daf00','"No."','model 1','{"temperature": 0.8999999999999999}',1790000007.25);
CREATE TABLE tasks (
	number INTEGER NOT NULL,
	id VARCHAR(64) NOT NULL,
	prompt_id VARCHAR(64) NOT NULL,
	first_id VARCHAR(64) NOT NULL,
	second_id VARCHAR(64) NOT NULL,
	wanted INTEGER NOT NULL,
	gold FLOAT,
	domain VARCHAR(255),
	strategy VARCHAR(255) NOT NULL,
	choice JSON NOT NULL,
	priority FLOAT NOT NULL,
	added_at FLOAT NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (id),
	FOREIGN KEY(prompt_id) REFERENCES prompts (id),
	FOREIGN KEY(first_id) REFERENCES responses (id),
	FOREIGN KEY(second_id) REFERENCES responses (id)
);
INSERT INTO "tasks" VALUES(1,'b6e544ab23ed88687924de4856ebb682','5034e701d45f6f875524b19ec154571a','d323b329f4e129c541fc5894f80af6ec','e7c20eb6062166fc9b133f12fc7a3ae4',2,NULL,'food','all','{"round": 0}',0.0,1790000007.25);
INSERT INTO "tasks" VALUES(2,'88f6066dbc83961dd5f1f3ecd01115bb','2f59e9312b3d7b02e0a7d799aeee8370','6303836d7e5eaeedb12f2238473cf26a','e12a5ce6c9a9239304a40c1492466dc2',3,0.0,'geography','all','{}',0.0,1790000007.25);
INSERT INTO "tasks" VALUES(3,'d588f7e16a01a91a0380f6fe134a32d4','80e3e931901bee43e4e89af558012548','0747564a02c30f05d1952208415be9ef','c04586f8eea08af75b0ff59824cfb3bf',1,NULL,'code','all','{}',2.5,1790000007.25);
INSERT INTO "tasks" VALUES(4,'b89cbee78618e5f2bdcb161b8e23bf79','a8f33fae6b51cc737827458c2f0daf00','279f807485adeaccbe92589d5c9e7624','6c44ea439d88be1bf0d26351af3c64c7',3,NULL,NULL,'all','{}',0.0,1790000007.25);
CREATE INDEX ix_responses_prompt_id ON responses (prompt_id);
CREATE INDEX ix_tasks_prompt_id ON tasks (prompt_id);
CREATE INDEX ix_leases_annotator ON leases (annotator);
CREATE INDEX ix_leases_task_id ON leases (task_id);
CREATE INDEX open_leases ON leases (task_id, closed, expires_at);
CREATE INDEX ix_answers_task_id ON answers (task_id);
CREATE INDEX ix_answers_annotator ON answers (annotator);
CREATE TRIGGER answers_update BEFORE UPDATE ON answers BEGIN SELECT RAISE(ABORT, 'answers are only added'); END;
CREATE TRIGGER answers_delete BEFORE DELETE ON answers BEGIN SELECT RAISE(ABORT, 'answers are only added'); END;
COMMIT;
