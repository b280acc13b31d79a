// Writes the .gob files beside this one, with Go's own encoder. See README.md.
//
// The structs have the field names and types that FORMATS.md ("raft/", snapshot) gives for
// SavedConfiguration, and a zoo of what else a gob stream can hold.
package main

import (
	"bytes"
	"encoding/gob"
	"log"
	"os"
	"time"
)

type CommonUser struct {
	Name, Hash    string
	IsUserDeleted bool
	CacheKey      string
}

type ClusterAdmin struct {
	CommonUser
}

type Matcher struct {
	IsRegex bool
	Name    string
}

type DbUser struct {
	CommonUser
	Db              string
	ReadFrom        []*Matcher
	WriteTo         []*Matcher
	IsAdmin         bool
	privateNotSaved int
}

type ClusterServer struct {
	Id                       uint32
	RaftName                 string
	State                    int
	RaftConnectionString     string
	ProtobufConnectionString string
	HeartbeatInterval        time.Duration
}

type OldShard struct {
	Id        uint32
	StartTime time.Time
	EndTime   time.Time
	ServerIds []uint32
	Type      int
}

type NewShard struct {
	Id        uint32
	SpaceName string
	Database  string
	StartTime time.Time
	EndTime   time.Time
	ServerIds []uint32
}

type ShardSpace struct {
	Name, Database, Regex          string
	RetentionPolicy, ShardDuration string
	ReplicationFactor, Split       uint32
}

type ContinuousQuery struct {
	Id    uint32
	Query string
}

type Store struct {
	StringsToIds map[string]map[string]map[string]uint64
	LastIdUsed   uint64
}

type Saved07 struct {
	Databases         map[string]uint8
	Admins            map[string]*ClusterAdmin
	DbUsers           map[string]map[string]*DbUser
	Servers           []*ClusterServer
	ShortTermShards   []*OldShard
	LongTermShards    []*OldShard
	ContinuousQueries map[string][]*ContinuousQuery
	LastShardIdUsed   uint32
}

type Saved08 struct {
	Databases           map[string]uint8
	Admins              map[string]*ClusterAdmin
	DbUsers             map[string]map[string]*DbUser
	Servers             []*ClusterServer
	ContinuousQueries   map[string][]*ContinuousQuery
	MetaStore           *Store
	LastShardIdUsed     uint32
	DatabaseShardSpaces map[string][]*ShardSpace
	Shards              []*NewShard
}

// Binary encodes itself (encoding.BinaryMarshaler). Go defines a wire type for TextMarshaler too, and
// never sends it.
type Binary struct{ word string }

func (b Binary) MarshalBinary() ([]byte, error) { return []byte("binary:" + b.word), nil }

// Opaque encodes itself (gob.GobEncoder).
type Opaque struct{ word string }

func (o Opaque) GobEncode() ([]byte, error) { return []byte("gob:" + o.word), nil }

type Empty struct{ Hidden int }

type Tree struct {
	Name     string
	Children []*Tree
}

type Zoo struct {
	Negative  int64
	Least     int64
	Most      int64
	Unsigned  uint64
	Small     int8
	True      bool
	False     bool
	Half      float64
	Third     float32
	Minus     float64
	Complex   complex128
	Text      string
	Wide      string
	NotUtf8   string
	Bytes     []byte
	Array     [3]int
	ByteArray [4]byte
	Floats    []float64
	Nested    map[string]map[int]map[bool]string
	Structs   []ShardSpace
	Pointer   *int
	Pointers  **string
	Empty     Empty
	NoMap     map[string]string
	EmptyMap  map[string]string
	Slices    [][][]int
	Utc       time.Time
	East      time.Time
	Seconds   time.Time
	Ancient   time.Time
	Marshals  Binary
	Encodes   Opaque
	Tree      *Tree
	Last      uint8
}

func moment(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		log.Fatal(err)
	}
	return t
}

func write(name string, values ...interface{}) {
	var buffer bytes.Buffer
	encoder := gob.NewEncoder(&buffer)
	for _, value := range values {
		if err := encoder.Encode(value); err != nil {
			log.Fatal(name, err)
		}
	}
	if err := os.WriteFile(name+".gob", buffer.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}

func common() (map[string]uint8, map[string]*ClusterAdmin, map[string]map[string]*DbUser, []*ClusterServer, map[string][]*ContinuousQuery) {
	root := &ClusterAdmin{CommonUser{Name: "root", Hash: "none", CacheKey: "root"}}
	paul := &DbUser{CommonUser: CommonUser{Name: "paul"}, Db: "test", ReadFrom: []*Matcher{{true, ".*"}}}
	return map[string]uint8{"test": 0, "müsli~1": 0},
		map[string]*ClusterAdmin{"root": root},
		map[string]map[string]*DbUser{"test": {"paul": paul}},
		[]*ClusterServer{
			{Id: 1, RaftName: "ab01bbc6779e57", State: 4, HeartbeatInterval: 200 * time.Millisecond},
			{Id: 2, RaftName: "cd", State: -1},
		},
		map[string][]*ContinuousQuery{"test": {{1, "select * from a into b"}}}
}

func main() {
	var s7 Saved07
	s7.Databases, s7.Admins, s7.DbUsers, s7.Servers, s7.ContinuousQueries = common()
	s7.ShortTermShards = []*OldShard{{3, moment("2014-10-02T00:00:00Z"), moment("2014-10-09T00:00:00Z"), []uint32{1, 2}, 1}}
	s7.LongTermShards = []*OldShard{{300, moment("1969-12-25T00:00:00Z"), moment("1970-01-01T00:00:00Z"), []uint32{1}, 0}}
	s7.LastShardIdUsed = 300
	write("saved-07", &s7)

	var s8 Saved08
	s8.Databases, s8.Admins, s8.DbUsers, s8.Servers, s8.ContinuousQueries = common()
	s8.MetaStore = &Store{map[string]map[string]map[string]uint64{
		"test":    {"cpu": {"value": 1, "host": 300}, "gone": {}},
		"müsli~1": {},
	}, 70000}
	s8.LastShardIdUsed = 302
	s8.DatabaseShardSpaces = map[string][]*ShardSpace{"test": {
		{"long_term", "test", "/^[A-Z].*/", "inf", "30d", 1, 1},
		{"short_term", "test", "/.*/", "", "", 2, 3},
	}}
	east := time.FixedZone("", 2*3600)
	s8.Shards = []*NewShard{
		{302, "short_term", "test", moment("2014-10-02T02:00:00Z").In(east), moment("2014-10-09T02:00:00Z").In(east), []uint32{1, 2}},
		{301, "long_term", "test", moment("1969-12-25T00:00:00Z"), moment("1970-01-24T00:00:00.5Z"), []uint32{1}},
	}
	write("saved-08", &s8)
	write("saved-08-empty", &Saved08{MetaStore: &Store{}})

	number, word := -7, "pointed at"
	pointer := &word
	write("zoo", &Zoo{
		Negative: -1, Least: -1 << 63, Most: 1<<63 - 1, Unsigned: 1<<64 - 1, Small: -128, True: true,
		Half: 0.5, Third: 1.0 / 3, Minus: -1e300, Complex: complex(1, -2),
		Text: "~", Wide: "ünïcöde ☃ 𝄞", NotUtf8: "a\xff\xfeb", Bytes: []byte{0, 1, 255},
		Array: [3]int{-1, 0, 1}, ByteArray: [4]byte{1, 0, 0, 255}, Floats: []float64{0, -0.25},
		Nested:  map[string]map[int]map[bool]string{"a": {-5: {true: "yes", false: "no"}}, "b": {}},
		Structs: []ShardSpace{{}, {Name: "x", Split: 2}}, Pointer: &number, Pointers: &pointer,
		EmptyMap: map[string]string{}, Slices: [][][]int{{{1}, {}}, {}},
		Utc:      moment("2014-10-02T16:20:00.123456789Z"),
		East:     moment("2014-10-02T16:20:00-07:30"),
		Seconds:  time.Date(1890, 1, 1, 0, 0, 0, 0, time.FixedZone("LMT", 53*60+28)),
		Ancient:  moment("1677-01-01T00:00:00.000001Z"),
		Marshals: Binary{"a"}, Encodes: Opaque{"b"},
		Tree: &Tree{"root", []*Tree{{"left", nil}, {"right", []*Tree{{"leaf", nil}}}}},
		Last: 255,
	})
	write("string", "a string alone")
	write("int", -70000)
	write("map", map[string]int{"a": 1, "b": -1})
	write("array", [2]string{"x", "y"})
	write("time", moment("2014-10-02T16:20:00Z"))
	write("interface", map[string]interface{}{"a": 1})
	write("two-values", "one", "two")
}
