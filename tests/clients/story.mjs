// Lives the story of test_clients.py with one of the JavaScript libraries, and tells what it saw as JSON.
import { Client as FhirKitClient } from "fhir-kit-client";
import smart from "fhirclient";
import { readFileSync } from "node:fs";

const told = JSON.parse(readFileSync(0));
const { url, authorization, username, password, page, patients, update, patch, transaction } = told;

// Each library in the same words.
const libraries = {
  "fhir-kit-client": () => {
    const client = new FhirKitClient({ baseUrl: url, customHeaders: { Authorization: authorization } });
    const at = ({ id }) => ({ resourceType: "Patient", id });
    return {
      create: (body) => client.create({ resourceType: "Patient", body }),
      read: (patient) => client.read(at(patient)),
      update: (body) => client.update({ ...at(body), body }),
      patch: (patient, jsonPatch) => client.patch({ ...at(patient), jsonPatch }),
      delete: (patient) => client.delete(at(patient)),
      transaction: (body) => client.transaction({ body }),
      status: (error) => error.response.status,
      pages: async (searchParams) => {
        const pages = [];
        let bundle = await client.search({ resourceType: "Patient", searchParams });
        for (; bundle; bundle = await client.nextPage({ bundle })) pages.push(bundle);
        return pages;
      },
    };
  },
  fhirclient: () => {
    const request = { url: "/", headers: { host: "localhost" }, connection: {} };
    const client = smart(request, {}).client({ serverUrl: url, username, password });
    const at = ({ id }) => `Patient/${id}`;
    return {
      create: (body) => client.create(body),
      read: (patient) => client.request(at(patient)),
      update: (body) => client.update(body),
      patch: (patient, jsonPatch) => client.patch(at(patient), jsonPatch),
      delete: (patient) => client.delete(at(patient)),
      transaction: (body) =>
        client.request({
          url: client.state.serverUrl,
          method: "POST",
          headers: { "content-type": "application/fhir+json" },
          body: JSON.stringify(body),
        }),
      status: (error) => error.status ?? error.statusCode,
      pages: async (parameters) => {
        const pages = [];
        const onPage = (bundle) => pages.push(bundle);
        await client.request(`Patient?${new URLSearchParams(parameters)}`, { pageLimit: 0, onPage });
        return pages;
      },
    };
  },
};

const library = libraries[process.argv[2]]();
const created = [];
for (const patient of patients) created.push(await library.create(patient));
const [first] = created;
const read = await library.read(first);
const pages = await library.pages({ identifier: `${patients[0].identifier[0].system}|`, _count: page });
const found = pages.flatMap(({ entry }) => entry.map(({ resource }) => resource.id));
const updated = await library.update({ ...read, ...update });
const patched = await library.patch(updated, [
  { op: "replace", path: "/gender", value: patch.gender },
  { op: "remove", path: "/telecom" },
]);
await library.delete(first);
const gone = await library.read(first).then(() => false, (error) => library.status(error) === 410);
const answer = await library.transaction(transaction);
process.stdout.write(JSON.stringify({ created, read, found, updated, patched, gone, answer }));
