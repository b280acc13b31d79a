// The least work that a reader of LevelDB can do: open each directory, iterate once, touch every
// byte of key and value. Options are LevelDB's defaults, but for the cache, which a scan can't use.
//
//   leveldb_scan JOBS DIRECTORY...
//
// JOBS processes take the directories in turn. It prints how many pairs there were, and a sum.

#include <leveldb/db.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace {

struct Shared {
  std::atomic<int> next{0};
  std::atomic<std::uint64_t> pairs{0};
  std::atomic<std::uint64_t> sum{0};
};

std::uint64_t Touch(const leveldb::Slice& bytes) {
  std::uint64_t sum = 0;
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + at, 8);
    sum = sum * 31 + word;
  }
  for (; at < bytes.size(); ++at) sum = sum * 31 + static_cast<unsigned char>(bytes[at]);
  return sum;
}

bool Scan(const char* directory, Shared* shared) {
  leveldb::DB* opened = nullptr;
  leveldb::Status status = leveldb::DB::Open(leveldb::Options(), directory, &opened);
  std::unique_ptr<leveldb::DB> db(opened);
  std::uint64_t pairs = 0, sum = 0;
  if (status.ok()) {
    leveldb::ReadOptions options;
    options.fill_cache = false;
    std::unique_ptr<leveldb::Iterator> it(db->NewIterator(options));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      ++pairs;
      sum += Touch(it->key()) ^ Touch(it->value());
    }
    status = it->status();
  }
  if (!status.ok()) std::fprintf(stderr, "%s: %s\n", directory, status.ToString().c_str());
  shared->pairs += pairs;
  shared->sum += sum;
  return status.ok();
}

}  // namespace

int main(int argc, char** argv) {
  const int jobs = argc > 2 ? std::atoi(argv[1]) : 0;
  if (jobs < 1) {
    std::fprintf(stderr, "usage: leveldb_scan JOBS DIRECTORY...\n");
    return 2;
  }
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  Shared* shared = new (memory) Shared;
  for (int job = 0; job < jobs; ++job) {
    if (fork() == 0) {
      bool good = true;
      for (int at; (at = 2 + shared->next++) < argc;) good = Scan(argv[at], shared) && good;
      _exit(good ? 0 : 1);
    }
  }
  int failed = 0, status = 0;
  while (wait(&status) > 0) failed |= status;
  std::printf("%llu pairs, sum %llx\n", static_cast<unsigned long long>(shared->pairs.load()),
              static_cast<unsigned long long>(shared->sum.load()));
  return failed ? 1 : 0;
}
