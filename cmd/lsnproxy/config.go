package main

import (
	"log/slog"
	"time"

	"github.com/lsnproxy/lsnproxy/session"
)

// config is the configuration as its users write it. The packages below never
// see it: startProxy turns it into their options. Keys, units, defaults and
// reasons are explained in configs/lsnproxy.yaml.
type config struct {
	Listen string   `mapstructure:"listen"`
	HTTP   string   `mapstructure:"http"` // "": none
	Nodes  []string `mapstructure:"nodes"`

	Monitor   monitorConfig    `mapstructure:"monitor"`
	Users     []userConfig     `mapstructure:"users"`
	Databases []databaseConfig `mapstructure:"databases"`
	Pool      poolConfig       `mapstructure:"pool"`
	Reads     readsConfig      `mapstructure:"reads"`

	Replication replicationConfig `mapstructure:"replication"`
	Console     consoleConfig     `mapstructure:"console"`
	Cluster     clusterConfig     `mapstructure:"cluster"`
	Failover    failoverConfig    `mapstructure:"failover"`

	TCP tcpConfig `mapstructure:"tcp"`

	LeaderWait            time.Duration `mapstructure:"leader_wait"`
	LoginTimeout          time.Duration `mapstructure:"login_timeout"`
	MaxClients            int           `mapstructure:"max_clients"`          // 0: no limit
	MaxDatabaseClients    int           `mapstructure:"max_database_clients"` // of each; 0: no limit
	MaxUserClients        int           `mapstructure:"max_user_clients"`     // of each; 0: no limit
	MaxPreparedStatements int           `mapstructure:"max_prepared_statements"`

	Engine        engineConfig  `mapstructure:"engine"`
	Log           logConfig     `mapstructure:"log"`
	ShutdownGrace time.Duration `mapstructure:"shutdown_grace"`
	Test          testConfig    `mapstructure:"test"`
}

type monitorConfig struct {
	User         string        `mapstructure:"user"`
	Password     string        `mapstructure:"password"`
	PasswordFile string        `mapstructure:"password_file"`
	Database     string        `mapstructure:"database"`
	Interval     time.Duration `mapstructure:"interval"`
	Timeout      time.Duration `mapstructure:"timeout"`
}

type userConfig struct {
	Name         string `mapstructure:"name"`
	Password     string `mapstructure:"password"`
	PasswordFile string `mapstructure:"password_file"`

	Pool           poolOverride  `mapstructure:"pool"`
	Reads          readsOverride `mapstructure:"reads"`
	MaxConnections *int          `mapstructure:"max_connections"`
	MaxClients     *int          `mapstructure:"max_clients"`
}

type databaseConfig struct {
	Name string `mapstructure:"name"`

	Pool           poolOverride  `mapstructure:"pool"`
	Reads          readsOverride `mapstructure:"reads"`
	MaxConnections *int          `mapstructure:"max_connections"`
	MaxClients     *int          `mapstructure:"max_clients"`
}

type poolConfig struct {
	Mode        session.Mode  `mapstructure:"mode"`
	Size        int           `mapstructure:"size"`
	Min         int           `mapstructure:"min"`
	Reserve     int           `mapstructure:"reserve"`
	ReserveWait time.Duration `mapstructure:"reserve_wait"`
	Wait        time.Duration `mapstructure:"wait"`
	Idle        time.Duration `mapstructure:"idle"`     // 0: never
	Lifetime    time.Duration `mapstructure:"lifetime"` // 0: no limit
	Connect     time.Duration `mapstructure:"connect"`

	MaxDatabaseConnections int `mapstructure:"max_database_connections"` // of each; 0: no limit
	MaxUserConnections     int `mapstructure:"max_user_connections"`     // of each; 0: no limit
}

type replicationConfig struct {
	MaxConnections int `mapstructure:"max_connections"`
}

// tcpConfig has PgBouncer's names.
type tcpConfig struct {
	Keepalive   bool          `mapstructure:"keepalive"`
	KeepIdle    time.Duration `mapstructure:"keepidle"`     // 0: the kernel's
	KeepIntvl   time.Duration `mapstructure:"keepintvl"`    // 0: the kernel's
	KeepCnt     int           `mapstructure:"keepcnt"`      // 0: the kernel's
	UserTimeout time.Duration `mapstructure:"user_timeout"` // 0: the kernel's
}

type engineConfig struct {
	Loops int `mapstructure:"loops"` // 0: one per two processors
}

type logConfig struct {
	Level  slog.Level `mapstructure:"level"`
	Format string     `mapstructure:"format"` // text or json
}

type testConfig struct {
	IgnorePositions bool `mapstructure:"ignore_positions"`
}

func defaults() config {
	return config{
		Listen:  "127.0.0.1:6432",
		HTTP:    "127.0.0.1:9432",
		Monitor: monitorConfig{User: "postgres", Database: "postgres", Interval: 250 * time.Millisecond, Timeout: 2 * time.Second},
		Pool:    poolConfig{Size: 20, ReserveWait: 5 * time.Second, Wait: 120 * time.Second, Idle: 10 * time.Minute, Lifetime: time.Hour, Connect: 5 * time.Second},
		Reads: readsConfig{
			Staleness: time.Second, Wait: 50 * time.Millisecond,
			MaxLag: 10 * time.Second, MaxLagBytes: 16 << 20, Prefer: "weight", SlowStart: 30 * time.Second, ReturnAfter: 10 * time.Second, Silence: 10 * time.Second,
		},
		Replication: replicationConfig{MaxConnections: 10},
		Console:     consoleConfig{Database: "lsnproxy"},
		Cluster:     clusterDefaults(), Failover: failoverDefaults(),
		TCP:                   tcpConfig{Keepalive: true, KeepIdle: time.Minute, KeepIntvl: 10 * time.Second, KeepCnt: 3},
		LeaderWait:            10 * time.Second,
		LoginTimeout:          60 * time.Second,
		MaxPreparedStatements: 200,
		Log:                   logConfig{Level: slog.LevelInfo, Format: "text"},
		ShutdownGrace:         10 * time.Second,
	}
}
