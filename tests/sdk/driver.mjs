// Lets another process use iCure's own SDK: one command per line on stdin, one answer per line on stdout, both JSON.
// A command is {"command": name, …arguments}, an answer {"result": …} or {"error": text}.
// Entities travel as iCure JSON: absent members are left out, enum values have their names on the wire.

import { createInterface } from 'node:readline'
import * as cardinal from '@icure/cardinal-sdk'

console.log = console.info = console.debug = console.error

const {
  AuthenticationMethod, CardinalSdk, ContactFilters, PatientFilters, ServiceFilters,
} = cardinal

const lowerFirst = text => text.charAt(0).toLowerCase() + text.slice(1)
const pascal = text => text.replace(/(^|_)([a-z])/g, (_, __, letter) => letter.toUpperCase())
const snake = text => text.replace(/(?<!^)([A-Z])/g, '_$1').toLowerCase()

// A member is read (`in`: JSON to SDK) and written (`out`: SDK to JSON) by a codec.
const word = { in: pascal, out: snake }
const camelWord = { in: pascal, out: lowerFirst }
const binary = {
  in: text => new Int8Array(Buffer.from(text, 'base64')),
  out: bytes => Buffer.from(bytes).toString('base64'),
}
const object = (type, members = {}) => ({
  in: json => new type(mapValues(json, (value, name) => members[name]?.in(value) ?? value)),
  out: entity => present(mapValues(entity, (value, name) => members[name] && value != null ? members[name].out(value) : plain(value))),
})
const list = codec => ({ in: items => items.map(codec.in), out: items => items.map(codec.out) })
const map = codec => ({
  in: entries => mapValues(entries, codec.in),
  out: entries => mapValues(entries, codec.out),
})
const links = {
  in: entries => Object.fromEntries(Object.entries(entries).map(([name, value]) => [pascal(name), value])),
  out: entries => Object.fromEntries(Object.entries(entries).map(([name, value]) => [lowerFirst(name), value])),
}
const later = codec => ({ in: json => codec().in(json), out: entity => codec().out(entity) })

const mapValues = (entries, change) =>
  Object.fromEntries(Object.entries(entries).map(([name, value]) => [name, change(value, name)]))
const INTERNAL = new Set(['isEncrypted', '$ktClass'])
const isEmpty = value =>
  value === undefined || value === null || (typeof value === 'object' && Object.keys(value).length === 0)
const present = entries =>
  Object.fromEntries(Object.entries(entries).filter(([name, value]) => !INTERNAL.has(name) && !isEmpty(value)))
const plain = value => {
  if (Array.isArray(value)) return value.map(plain)
  if (value !== null && typeof value === 'object') return present(mapValues(value, plain))
  return value
}

const codeStub = object(cardinal.CodeStub)
const codes = list(codeStub)
const identifiers = list(object(cardinal.Identifier, { type: codeStub }))
const annotations = list(object(cardinal.Annotation, { tags: codes }))
const properties = list(object(cardinal.DecryptedPropertyStub, {
  type: object(cardinal.PropertyTypeStub),
  typedValue: object(cardinal.DecryptedTypedValue),
}))
const telecoms = list(object(cardinal.DecryptedTelecom, { telecomType: word }))
const address = object(cardinal.DecryptedAddress, {
  addressType: word, telecoms, identifier: identifiers, notes: annotations, tags: codes, codes,
})
const patient = object(cardinal.DecryptedPatient, {
  identifier: identifiers, tags: codes, codes, notes: annotations, properties, picture: binary,
  gender: camelWord, birthSex: camelWord, personalStatus: word, deactivationReason: word,
  names: list(object(cardinal.PersonName, { use: word })),
  addresses: list(address),
  partnerships: list(object(cardinal.Partnership, { type: word, status: word })),
  patientHealthCareParties: list(object(cardinal.DecryptedPatientHealthCareParty, { type: word })),
  patientProfessions: codes,
})
const measure = object(cardinal.Measure, {
  unitCodes: codes,
  referenceRanges: list(object(cardinal.ReferenceRange, { tags: codes, codes, notes: annotations })),
})
const content = object(cardinal.DecryptedContent, {
  measureValue: measure, ratio: list(measure), range: list(measure), binaryValue: binary,
  timeSeries: object(cardinal.TimeSeries), compoundValue: later(() => services),
})
const service = object(cardinal.DecryptedService, {
  identifier: identifiers, tags: codes, codes, notes: annotations, content: map(content), qualifiedLinks: links,
})
const services = list(service)
const contact = object(cardinal.DecryptedContact, {
  identifier: identifiers, tags: codes, codes, notes: annotations, services, encounterType: codeStub,
  encounterLocation: address,
  subContacts: list(object(cardinal.DecryptedSubContact, { services: list(object(cardinal.ServiceLink)), tags: codes, codes })),
})

const healthElement = object(cardinal.DecryptedHealthElement, {
  identifiers, tags: codes, codes, notes: annotations, laterality: camelWord,
})
const party = object(cardinal.HealthcareParty, {
  identifier: identifiers, tags: codes, codes, gender: camelWord, picture: binary, specialityCodes: codes, properties,
  names: list(object(cardinal.PersonName, { use: word })),
  addresses: list(address),
})

const userType = { in: text => cardinal.UsersStatus[pascal(text.toLowerCase())], out: text => text.toUpperCase() }
const user = object(cardinal.User, { identifier: identifiers, properties, status: userType })

const KEY_ENTRY = 'org.taktik.icure.rsa.device.'
const FINGERPRINT_LENGTH = 32
let sdk = null
let me = null
const listening = []

const all = async iterator => {
  const found = []
  while (await iterator.hasNext()) found.push(...(await iterator.next(1000)))
  return found
}
const pick = (entity, names) => Object.fromEntries(Object.keys(names).map(name => [name, entity[name]]))
const accessLevels = delegates => Object.fromEntries((delegates ?? []).map(id => [id, cardinal.AccessLevel.Write]))

const commands = {
  async login({ url, login, password, dataOwnerId, privateKey, publicKey }) {
    const entries = new Map()
    const name = KEY_ENTRY + `${dataOwnerId}.${publicKey.slice(-FINGERPRINT_LENGTH)}`
    entries.set(name, JSON.stringify({ privateKey: Buffer.from(privateKey, 'hex').toString('base64') }))
    const storage = {
      getItem: async key => entries.get(key),
      setItem: async (key, value) => void entries.set(key, value),
      removeItem: async key => void entries.delete(key),
    }
    sdk = await CardinalSdk.initialize(
      undefined,
      url,
      new AuthenticationMethod.UsingCredentials.UsernamePassword(login, password),
      storage,
      { useHierarchicalDataOwners: false },
    )
    me = dataOwnerId
    return { keys: Object.keys((await sdk.crypto.currentDataOwnerKeys())[dataOwnerId] ?? {}) }
  },
  async createPatient({ patient: json, delegates }) {
    const user = await sdk.user.getCurrentUser()
    const made = await sdk.patient.withEncryptionMetadata(patient.in(json), { user, delegates: accessLevels(delegates) })
    return patient.out(await sdk.patient.createPatient(made))
  },
  async getPatient({ id }) {
    return patient.out(await sdk.patient.getPatient(id))
  },
  async updatePatient({ id, changes }) {
    const found = await sdk.patient.getPatient(id)
    return patient.out(await sdk.patient.modifyPatient(new cardinal.DecryptedPatient({ ...found, ...pick(patient.in(changes), changes) })))
  },
  async deletePatient({ id }) {
    return plain(await sdk.patient.deletePatient(await sdk.patient.getPatient(id)))
  },
  async sharePatientWith({ id, delegate }) {
    return patient.out(await sdk.patient.shareWith(delegate, await sdk.patient.getPatient(id)))
  },
  // The same entity again and again, as it was before the first share of it.
  async sharePatientAsItWas({ id, delegates }) {
    const found = await sdk.patient.getPatient(id)
    for (const delegate of delegates) await sdk.patient.shareWith(delegate, found)
    return patient.out(await sdk.patient.modifyPatient(found))
  },
  async secretIdsOfPatient({ id }) {
    return sdk.patient.getSecretIdsOf(await sdk.patient.getPatient(id))
  },
  async findPatients({ name, identifier, gender, birthDates, ids }) {
    const filters = [
      name !== undefined && PatientFilters.byNameForSelf(name),
      identifier !== undefined && PatientFilters.byIdentifiersForSelf(identifiers.in([identifier])),
      gender !== undefined && PatientFilters.byGenderEducationProfessionForSelf(camelWord.in(gender)),
      birthDates !== undefined && PatientFilters.byDateOfBirthBetweenForSelf(...birthDates),
      ids !== undefined && PatientFilters.byIds(ids),
    ].filter(Boolean)
    const filter = filters.length === 0 ? PatientFilters.allPatientsForSelf()
      : filters.length === 1 ? filters[0] : cardinal.intersection(...filters)
    return (await all(await sdk.patient.filterPatientsBy(filter))).map(patient.out)
  },
  async createContact({ patientId, contact: json, delegates }) {
    const user = await sdk.user.getCurrentUser()
    const owner = await sdk.patient.getPatient(patientId)
    const made = await sdk.contact.withEncryptionMetadata(contact.in(json), owner, { user, delegates: accessLevels(delegates) })
    return contact.out(await sdk.contact.createContact(made))
  },
  async getContact({ id }) {
    return contact.out(await sdk.contact.getContact(id))
  },
  async updateContact({ id, changes }) {
    const found = await sdk.contact.getContact(id)
    return contact.out(await sdk.contact.modifyContact(new cardinal.DecryptedContact({ ...found, ...pick(contact.in(changes), changes) })))
  },
  async deleteContact({ id }) {
    return plain(await sdk.contact.deleteContact(await sdk.contact.getContact(id)))
  },
  async patientOfContact({ id }) {
    return sdk.contact.decryptPatientIdOf(await sdk.contact.getContact(id))
  },
  async shareContactWith({ id, delegate }) {
    return contact.out(await sdk.contact.shareWith(delegate, await sdk.contact.getContact(id)))
  },
  async createHealthElement({ patientId, healthElement: json }) {
    const user = await sdk.user.getCurrentUser()
    const owner = await sdk.patient.getPatient(patientId)
    const made = await sdk.healthElement.withEncryptionMetadata(healthElement.in(json), owner, { user })
    return healthElement.out(await sdk.healthElement.createHealthElement(made))
  },
  async getHealthElement({ id }) {
    return healthElement.out(await sdk.healthElement.getHealthElement(id))
  },
  async updateHealthElement({ id, changes }) {
    const found = await sdk.healthElement.getHealthElement(id)
    const edited = { ...found, ...pick(healthElement.in(changes), changes) }
    return healthElement.out(await sdk.healthElement.modifyHealthElement(new cardinal.DecryptedHealthElement(edited)))
  },
  async deleteHealthElement({ id }) {
    return plain(await sdk.healthElement.deleteHealthElement(await sdk.healthElement.getHealthElement(id)))
  },
  async patientOfHealthElement({ id }) {
    return sdk.healthElement.decryptPatientIdOf(await sdk.healthElement.getHealthElement(id))
  },
  async shareHealthElementWith({ id, delegate }) {
    return healthElement.out(await sdk.healthElement.shareWith(delegate, await sdk.healthElement.getHealthElement(id)))
  },
  async createParty({ party: json }) {
    return party.out(await sdk.healthcareParty.createHealthcareParty(party.in(json)))
  },
  async getParty({ id }) {
    return party.out(await sdk.healthcareParty.getHealthcareParty(id))
  },
  async updateParty({ id, changes }) {
    const found = await sdk.healthcareParty.getHealthcareParty(id)
    const edited = { ...found, ...pick(party.in(changes), changes) }
    return party.out(await sdk.healthcareParty.modifyHealthcareParty(new cardinal.HealthcareParty(edited)))
  },
  async getService({ id }) {
    return service.out(await sdk.contact.getService(id))
  },
  async updateService({ id, changes }) {
    const home = await sdk.contact.getContact((await sdk.contact.getService(id)).contactId)
    const edited = home.services.map(one => one.id !== id ? one
      : new cardinal.DecryptedService({ ...one, modified: Date.now(), ...pick(service.in(changes), changes) }))
    return contact.out(await sdk.contact.modifyContact(new cardinal.DecryptedContact({ ...home, services: edited })))
  },
  async findServices({ code, tag, identifier }) {
    const filter = code !== undefined
      ? ServiceFilters.byCodeAndValueDateForSelf(code.type, { codeCode: code.code })
      : tag !== undefined
        ? ServiceFilters.byTagAndValueDateForSelf(tag.type, { tagCode: tag.code })
        : identifier !== undefined
          ? ServiceFilters.byIdentifiersForSelf(identifiers.in([identifier]))
          : ServiceFilters.allServicesForSelf()
    return (await all(await sdk.contact.filterServicesBy(filter))).map(service.out)
  },
  async findServicesOfPatient({ patientId }) {
    const filter = ServiceFilters.byPatientsForSelf([await sdk.patient.getPatient(patientId)])
    return (await all(await sdk.contact.filterServicesBy(filter))).map(service.out)
  },
  async findContactsOfPatient({ patientId }) {
    const filter = ContactFilters.byPatientsForSelf([await sdk.patient.getPatient(patientId)])
    return (await all(await sdk.contact.filterContactsBy(filter))).map(contact.out)
  },
  async currentUser() {
    return plain(await sdk.user.getCurrentUser())
  },
  async currentDataOwner() {
    return plain(await sdk.dataOwner.getCurrentDataOwner())
  },
  // A user without data owner and without keys: the SDK's part that needs neither.
  async loginWithoutKeys({ url, login, password }) {
    const credentials = new AuthenticationMethod.UsingCredentials.UsernamePassword(login, password)
    sdk = await cardinal.CardinalBaseSdk.initialize(undefined, url, credentials)
    return plain(await sdk.user.getCurrentUser())
  },
  async createUser({ user: json }) {
    return user.out(await sdk.user.createUser(user.in(json)))
  },
  async getUser({ id }) {
    return user.out(await sdk.user.getUser(id))
  },
  async getUserByEmail({ email }) {
    return user.out(await sdk.user.getUserByEmail(email))
  },
  async findAccessLogs({ patientId }) {
    const filter = cardinal.AccessLogFilters.byPatientsDateForSelf([await sdk.patient.getPatient(patientId)])
    return (await all(await sdk.accessLog.filterAccessLogsBy(filter))).map(plain)
  },
  async patientOfAccessLog({ id }) {
    return sdk.accessLog.decryptPatientIdOf(await sdk.accessLog.getAccessLog(id))
  },
  async findUsers({ patientId, ids }) {
    const filter = patientId !== undefined ? cardinal.UserFilters.byPatientId(patientId) : cardinal.UserFilters.byIds(ids)
    return (await all(await sdk.user.filterUsersBy(filter))).map(user.out)
  },
  async updateUser({ id, changes }) {
    const found = await sdk.user.getUser(id)
    return user.out(await sdk.user.modifyUser(new cardinal.User({ ...found, ...pick(user.in(changes), changes) })))
  },
  async deleteUser({ id }) {
    return plain(await sdk.user.deleteUser(await sdk.user.getUser(id)))
  },
  async subscribe({ tag, events }) {
    const subscription = tag !== undefined
      ? await sdk.contact.subscribeToServiceCreateOrUpdateEvents(ServiceFilters.byTagAndValueDateForSelf(tag.type, { tagCode: tag.code }))
      : await sdk.patient.subscribeToEvents(events, PatientFilters.allPatientsForSelf())
    return listening.push(subscription) - 1
  },
  async nextEvent({ subscription, milliseconds }) {
    const event = await listening[subscription].waitForEvent(milliseconds)
    return event && { kind: event.$ktClass.split('.').pop(), id: event.entity?.id }
  },
  async unsubscribe({ subscription }) {
    await listening[subscription].close()
    return listening[subscription].isClosed
  },
  async createToken({ userId, seconds }) {
    return sdk.user.getToken(userId, crypto.randomUUID(), { tokenValidity: seconds })
  },
}

const answer = async line => {
  try {
    const { command, ...given } = JSON.parse(line)
    return { result: (await commands[command](given)) ?? null }
  } catch (error) {
    return { error: `${error?.name ?? ''}: ${error?.message ?? error}`.slice(0, 2000) }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await answer(line)) + '\n')
}
process.exit(0)
