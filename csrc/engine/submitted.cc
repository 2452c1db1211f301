#include "engine/submitted.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace ronde {

void Submitted::add(std::shared_ptr<Submission> submission) {
  const auto& call = submission->call();
  auto& key = key_of(*submission);
  if (!call.name.empty() && (key.running || !key.pending.empty()))
    throw ArgumentError("an asynchronous " + call.kind + " with the name '" + call.name +
                        "' is pending: wait for it first, or give this one another name");
  add(key, std::move(submission));
}

void Submitted::add_neutral(std::shared_ptr<Submission> submission) {
  auto& key = key_of(*submission);
  add(key, std::move(submission));
}

Submitted::Key& Submitted::key_of(const Submission& submission) {
  const auto found = keys_.find(submission.key());
  if (found != keys_.end()) return *found->second;
  auto made = std::make_shared<Key>(Key{submission.key(), {}});
  return *keys_.emplace(submission.key(), std::move(made)).first->second;
}

void Submitted::add(Key& key, std::shared_ptr<Submission> submission) {
  const auto now = Clock::now();
  key.pending.push_back({so_far_++, std::move(submission), now, now});
  ++count_;
}

std::vector<Submitted::Call> Submitted::in_order() const {
  std::vector<Call> all;
  for (const auto& [text, key] : keys_)
    all.insert(all.end(), key->pending.begin(), key->pending.end());
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  return all;
}

std::shared_ptr<Submitted::Key> Submitted::find(const std::string& key) const {
  const auto found = keys_.find(key);
  return found == keys_.end() ? nullptr : found->second;
}

void Submitted::begin(const Calls& calls) {
  for (const auto& call : calls) call->begin();
  const Key* before = nullptr;
  for (const auto& call : calls) {
    auto& key = *keys_.at(call->key());
    ++key.running;
    --count_;
    // Calls without a name have one key, and there may be many.
    if (std::exchange(before, &key) != &key)
      std::erase_if(key.pending, [](const auto& each) { return each.submission->begun(); });
  }
}

void Submitted::end(const Calls& calls) {
  for (const auto& call : calls) {
    const auto key = keys_.find(call->key());
    --key->second->running;
    if (is_unused(key->second)) keys_.erase(key);
  }
}

Calls Submitted::take_all() {
  Calls all;
  for (auto& call : in_order()) all.push_back(std::move(call.submission));
  for (auto& [text, key] : keys_) key->pending.clear();
  count_ = 0;
  sweep();
  return all;
}

void Submitted::sweep() {
  std::erase_if(keys_, [](const auto& each) { return is_unused(each.second); });
}

/// Names may never come again.
bool Submitted::is_unused(const std::shared_ptr<Key>& key) {
  return key->pending.empty() && !key->running && key.use_count() == 1;
}

}  // namespace ronde
