// A backup client as users of the JavaScript SDK wrote one: all nine operations, driven by a plan on standard input.
"use strict";
const AWS = require("aws-sdk");
const fs = require("fs");

const storage = new AWS.BackupStorage({
  endpoint: process.env.AWS_ENDPOINT_URL,
  region: "local-1",
  maxRetries: 2,
});

async function write(jobId, plan) {
  for (const entry of plan.objects) {
    if ("inline" in entry) await putObject(jobId, entry);
    else await upload(jobId, entry);
  }
  const gone = { BackupJobId: jobId, ObjectName: plan.delete };
  await storage.putObject({ ...gone, InlineChunk: Buffer.from("gone") }).promise();
  await storage.deleteObject(gone).promise();
  try {
    const taken = { BackupJobId: jobId, ObjectName: plan.objects[0].name, ThrowOnDuplicate: true };
    await storage.startObject(taken).promise();
  } catch (error) {
    if (error.code !== "DataAlreadyExistsException") throw error;
    return { duplicate: error.Checksum };
  }
  return {};
}

async function putObject(jobId, entry) {
  const parameters = {
    BackupJobId: jobId,
    ObjectName: entry.name,
    InlineChunk: Buffer.from(entry.inline, "base64"),
    InlineChunkLength: entry.length,
    InlineChunkChecksum: entry.checksum,
    InlineChunkChecksumAlgorithm: "SHA256",
    ThrowOnDuplicate: true,
  };
  if ("metadataString" in entry) parameters.MetadataString = entry.metadataString;
  await storage.putObject(parameters).promise();
}

async function upload(jobId, entry) {
  const started = await storage.startObject({ BackupJobId: jobId, ObjectName: entry.name }).promise();
  const upload = { BackupJobId: jobId, UploadId: started.UploadId };
  for (const chunk of entry.chunks) {
    const stored = await storage
      .putChunk({
        ...upload,
        ChunkIndex: chunk.index,
        Data: Buffer.from(chunk.data, "base64"),
        Length: chunk.length,
        Checksum: chunk.checksum,
        ChecksumAlgorithm: "SHA256",
      })
      .promise();
    same(stored.ChunkChecksum, chunk.checksum);
  }
  const parameters = {
    ...upload,
    ObjectChecksum: entry.checksum,
    ObjectChecksumAlgorithm: "SUMMARY",
    MetadataString: entry.metadataString,
  };
  if ("blob" in entry) {
    parameters.MetadataBlob = Buffer.from(entry.blob, "base64");
    parameters.MetadataBlobLength = entry.blobLength;
    parameters.MetadataBlobChecksum = entry.blobChecksum;
    parameters.MetadataBlobChecksumAlgorithm = "SHA256";
  }
  same((await storage.notifyObjectComplete(parameters).promise()).ObjectChecksum, entry.checksum);
}

async function read(jobId) {
  const objects = {};
  for (const item of await listed("listObjects", "ObjectList", { StorageJobId: jobId, MaxResults: 7 })) {
    const object = { StorageJobId: jobId, ObjectToken: item.ObjectToken };
    const metadata = await storage.getObjectMetadata(object).promise();
    same(metadata.MetadataString, item.MetadataString);
    same(metadata.MetadataBlobLength || 0, metadata.MetadataBlob.length);
    const chunks = [];
    for (const chunk of await listed("listChunks", "ChunkList", { ...object, MaxResults: 2 })) {
      const got = await storage.getChunk({ StorageJobId: jobId, ChunkToken: chunk.ChunkToken }).promise();
      same(got.Length, got.Data.length);
      same(got.Checksum, chunk.Checksum);
      chunks.push([chunk.Index, chunk.Checksum, got.Data.toString("base64")]);
    }
    objects[item.Name] = {
      checksum: item.ObjectChecksum,
      chunks,
      metadataString: item.MetadataString === undefined ? null : item.MetadataString,
      blob: metadata.MetadataBlob.length ? metadata.MetadataBlob.toString("base64") : null,
    };
  }
  return objects;
}

async function listed(operation, key, parameters) {
  const items = [];
  for (;;) {
    const page = await storage[operation](parameters).promise();
    items.push(...page[key]);
    if (!page.NextToken) return items;
    parameters = { ...parameters, NextToken: page.NextToken };
  }
}

function same(got, wanted) {
  if (got !== wanted) throw new Error(`got ${got}, wanted ${wanted}`);
}

async function main() {
  const asked = JSON.parse(fs.readFileSync(0));
  const answer = asked.verb === "write" ? await write(asked.jobId, asked.plan) : await read(asked.jobId);
  fs.writeSync(1, JSON.stringify(answer));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
